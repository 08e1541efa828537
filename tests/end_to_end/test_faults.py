"""The real stages with things dying under them: the manifests are those of the run that nothing disturbed."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import build_queries, build_wit
from pipeline import balance, crawl, dedupe, download, match, shard
from pipeline.config import MiniConfig
from pipeline.manifest import Dataset
from tests.conftest import REPOSITORY
from tests.end_to_end.conftest import SmallWeb
from tests.faults.stages import die_once

STAGES = [
    (crawl, "STAGE"),
    (match, "STAGE"),
    (balance, "COUNT"),
    (balance, "WINDOWS"),
    (balance, "DRAWS"),
    (balance, "LIMITS"),
    (balance, "STAGE"),
    (balance, "PER_QUERY"),
    (download, "STAGE"),
    (dedupe, "BANDS"),
    (dedupe, "EDGES"),
    (dedupe, "STAGE"),
    (shard, "TRIM"),
    (shard, "STAGE"),
]
LIMITS = ("_counts", "_windows", "_draws", "_limits")
FOLDERS = ("1_candidates", "2_matched", *(f"3_balanced/{name}" for name in LIMITS), "3_balanced", "4_images")
FOLDERS += ("5_unique/_bands", "5_unique/_edges", "5_unique", *(f"5_unique/{name}" for name in LIMITS), "5_unique/_trimmed")
FOLDERS += ("6_shards", "3_balanced/_per_query", "6_shards/_per_query")


@dataclass(frozen=True)
class Mortal:
    """A stage's worker that works, and then, the first time of all, dies before anything is written."""

    worker: Any
    marker: str
    name: str

    def __call__(self, config: Any, sides: Any) -> Any:
        real = self.worker(config, sides)

        def work(*tables: Any, **options: Any) -> Any:
            labelled = real(*tables, **options)
            die_once(self.marker, self.name)
            return labelled

        return work


def hashes(root: str) -> dict[str, str]:
    return {folder: Dataset(f"{root}/{folder}").manifest.hash for folder in FOLDERS}


@pytest.fixture
def fresh(built: tuple[MiniConfig, Path], tmp_path: Path) -> Iterator[MiniConfig]:
    """The config of the undisturbed run with an empty root, but for the query list."""
    if "MINI_ROOT" in os.environ:
        pytest.skip("needs a web of its own size")
    config = replace(built[0], root=str(tmp_path / "root"))
    build_queries.main(config)
    yield config
    shutil.rmtree(config.root)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_in_each_stage_changes_nothing(
    fresh: MiniConfig, built: tuple[MiniConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    marker.mkdir()
    for module, name in STAGES:
        stage = getattr(module, name)
        monkeypatch.setattr(module, name, replace(stage, worker=Mortal(stage.worker, str(marker), stage.name)))
    build_wit.main(fresh)
    assert len(list(marker.iterdir())) == len(STAGES)
    assert hashes(fresh.root) == hashes(built[0].root)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_killed_between_stages_changes_nothing(
    fresh: MiniConfig, built: tuple[MiniConfig, Path], web: SmallWeb, ray_address: str
) -> None:
    command = [sys.executable, "jobs/build_wit.py", "mini", "--root", fresh.root, "--archives", str(web.folder / "archives")]
    command += ["--download.hosts-file", str(web.folder / "hosts"), "--download.hosts-port", str(web.port)]
    command += ["--match.num-buckets", "3", "--balance.max-per-query", "12"]
    command += ["--shard.pairs-per-shard", "100", "--shard.parts-per-group", "2"]
    environment = {**os.environ, "RAY_ADDRESS": ray_address}
    for stage in ("match", "balance", "dedupe_bands"):
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            assert any(line.startswith(f"{stage} ") and " s" in line and "->" in line for line in driver.stdout), (
                f"{stage} did not end"
            )
            driver.send_signal(signal.SIGKILL)
            driver.stdout.read()
        assert driver.returncode == -signal.SIGKILL
    build_wit.main(fresh)
    assert hashes(fresh.root) == hashes(built[0].root)
