"""One small web, served, and one dataset built from it by the jobs themselves, for all end-to-end tests.

MINI_ROOT names the root of a finished `make mini` to test instead.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from infra.mini.head import stop
from infra.mini.run import serve
from pipeline.config import MiniConfig, mini
from tests.conftest import REPOSITORY

NUM_LINKS = 1500


@dataclass(frozen=True)
class SmallWeb:
    """A generated web and the port that serves it."""

    folder: Path
    port: int

    def config(self, root: str) -> MiniConfig:
        """The mini recipe on this web, with limits that a web of this size exceeds."""
        recipe = mini()
        return replace(
            recipe,
            root=root,
            archives=(str(self.folder / "archives"),),
            queries=replace(
                recipe.queries, concept_files=(str(self.folder / "concepts.txt"),), text_files=(str(self.folder / "corpus.txt"),)
            ),
            download=replace(recipe.download, hosts_file=str(self.folder / "hosts"), hosts_port=self.port),
            match=replace(recipe.match, num_buckets=3),
            balance=replace(recipe.balance, max_per_query=12),
            shard=replace(recipe.shard, pairs_per_shard=100, parts_per_group=2),
        )


@contextmanager
def served(folder: Path) -> Iterator[SmallWeb]:
    """The web in `folder`, served by a process of its own."""
    process, port = serve(folder, folder.parent / "port")
    try:
        yield SmallWeb(folder, port)
    finally:
        stop(process)


@pytest.fixture(scope="session")
def web_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated small web."""
    folder = tmp_path_factory.mktemp("small") / "web"
    command = [sys.executable, "-m", "infra.mini.web", "--out", str(folder), "--links", str(NUM_LINKS)]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def web(web_folder: Path) -> Iterator[SmallWeb]:
    """The generated small web, served."""
    with served(web_folder) as small:
        yield small


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MiniConfig, Path]:
    """A dataset that the jobs built: its config and the folder of its web."""
    if "MINI_ROOT" in os.environ:
        root = Path(os.environ["MINI_ROOT"]).resolve()
        return replace(mini(), root=str(root)), root / "web"
    request.getfixturevalue("ray_address")
    from jobs import build_queries, build_wit

    web = request.getfixturevalue("web")
    config = web.config(str(tmp_path_factory.mktemp("built") / "root"))
    build_queries.main(config)
    build_wit.main(config)
    return config, web.folder
