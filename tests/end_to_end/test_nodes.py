"""The whole build on several nodes: one is killed, one comes, one stands still again and again; the manifests do not differ."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import MiniConfig
from tests.conftest import REPOSITORY
from tests.end_to_end.conftest import SmallWeb
from tests.end_to_end.test_faults import fresh, hashes  # noqa: F401
from tests.nodes import Cluster, Node

STALL_SECONDS = 3.0
NUM_STALLS = 8


def command_of(config: MiniConfig, web: SmallWeb) -> list[str]:
    """The job's command line for that config."""
    command = [sys.executable, "jobs/build_wit.py", "mini", "--root", config.root, "--archives", str(web.folder / "archives")]
    command += ["--download.hosts-file", str(web.folder / "hosts"), "--download.hosts-port", str(web.port)]
    command += ["--match.num-buckets", "3", "--balance.max-per-query", "12"]
    return [*command, "--shard.pairs-per-shard", "100", "--shard.parts-per-group", "2"]


def when(folder: Path, act: Callable[[], None], done: threading.Event) -> threading.Thread:
    """Act once, as soon as the folder has a finished part."""

    def watch() -> None:
        while not done.wait(0.02):
            if folder.exists() and any(folder.glob("*.parquet")):
                act()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nodes_that_die_come_and_stand_still_change_nothing(
    fresh: MiniConfig,  # noqa: F811
    built: tuple[MiniConfig, Path],
    web: SmallWeb,
    tmp_path: Path,
) -> None:
    root, done, happened = Path(fresh.root), threading.Event(), []
    with Cluster() as cluster:
        node = cluster.add()

        def replace() -> None:
            node.kill()
            happened.append("killed")
            other = cluster.add()
            happened.append("added")
            threads.append(when(root / "5_unique/_bands", lambda: stall(other), done))

        def stall(other: Node) -> None:
            other.stall(NUM_STALLS, STALL_SECONDS, done)
            happened.append("stalled")

        threads = [when(root / "4_images", replace, done)]
        try:
            found = subprocess.run(
                command_of(fresh, web), cwd=REPOSITORY, env=cluster.environment(), capture_output=True, text=True, check=False
            )
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert happened == ["killed", "added", "stalled"]
    assert hashes(fresh.root) == hashes(built[0].root)
