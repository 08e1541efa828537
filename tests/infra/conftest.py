"""A small web for the tests, made once."""

import polars as pl
import pytest

from infra.mini import web

LINKS = 600


@pytest.fixture(scope="session")
def mini_web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    web.build(str(folder), LINKS, seed=0, num_workers=1, say=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def truth(mini_web):
    return pl.read_parquet(mini_web / "truth.parquet")
