"""An archive that ends in the middle of a record stops the build with one line; what is whole stays, and it goes on after."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import build_queries, build_wit
from pipeline.config import MiniConfig
from pipeline.errors import InputError
from pipeline.manifest import Dataset


@pytest.mark.slow
def test_a_cut_off_archive_is_named_and_the_build_goes_on_once_it_is_whole(
    built: tuple[MiniConfig, Path], tmp_path: Path
) -> None:
    config, web = built
    archives = tmp_path / "archives"
    shutil.copytree(web / "archives", archives)
    victim = sorted(archives.glob("*.warc.gz"))[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) * 2 // 3])
    run = replace(config.run, num_workers=2)
    torn = replace(config, root=str(tmp_path / "root"), archives=(str(archives),), run=run)
    build_queries.main(torn)
    with pytest.raises(
        InputError, match=rf"{victim.name}.*ends in the middle of a record.*download it again.*parts of .* are committed"
    ):
        build_wit.main(torn)
    assert not (tmp_path / "root" / "1_candidates" / "_MANIFEST.json").exists()
    assert not (tmp_path / "root" / "2_matched").exists()
    victim.write_bytes(whole)
    build_wit.main(torn)
    pairs = [sorted(Dataset(f"{root}/6_shards").read(("pair_id",))["pair_id"].to_pylist()) for root in (torn.root, config.root)]
    assert pairs[0] == pairs[1]
