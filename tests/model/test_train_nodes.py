"""Training on several nodes that die and come: a worker node, with and without one to take its place, and the head."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model import checkpoint, runs
from tests.conftest import REPOSITORY
from tests.model.ranks_helper import run_ranks
from tests.model.small import small_run
from tests.model.test_notices import check_equal
from tests.model.test_train import events, rank_run
from tests.model.test_train_options import without_batch_norm
from tests.nodes import Cluster

STEPS, KILL_AT, SAVE_EVERY = 600, 60, 50
RUN = """
import sys
from pathlib import Path
from jobs.train import main
from tests.model.test_train_nodes import config_of
main(config_of(Path(sys.argv[1]), *map(int, sys.argv[2:])))
"""


def changes_of(min_workers: int = 0, save_every: int = SAVE_EVERY) -> dict[str, object]:
    """Two ranks, steps for long enough that a node can die, a model whose ranks do not matter."""
    return {"num_workers": 2, "min_workers": min_workers, "num_samples": 16 * STEPS, "checkpoint_every_steps": save_every,
            "model": without_batch_norm()}  # fmt: skip


def config_of(root: Path, min_workers: int = 0, save_every: int = SAVE_EVERY):
    """The run of these tests."""
    return small_run(root, **changes_of(min_workers, save_every))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    config_of(root)
    run_ranks(2, tmp_path_factory.mktemp("ranks"), rank_run, str(root), changes_of())
    return root


def wait_for(found: Callable[[], list[str]], seconds: float = 60.0) -> list[str]:
    """What `found` returns as soon as it is something."""
    ticks, deadline = threading.Event(), time.monotonic() + seconds
    while not (names := found()) and time.monotonic() < deadline:
        ticks.wait(0.01)
    return names


def drive(
    cluster: Cluster, root: Path, min_workers: int, at_step: Callable[[], None], save_every: int = SAVE_EVERY
) -> tuple[int, str]:
    """The job as a process of its own; `at_step` is called once the curve has KILL_AT lines. -> exit code, what it said"""
    config = config_of(root, min_workers, save_every)
    curve, is_called = Path(runs.events_path(config)), False
    command = [sys.executable, "-c", RUN, str(root), str(min_workers), str(save_every)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=cluster.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        assert driver.stdout is not None
        said = []
        for line in driver.stdout:  # the job says a line a step
            said.append(line)
            if not is_called and curve.exists() and len(curve.read_text().splitlines()) >= KILL_AT:
                is_called = True
                at_step()
            if "GCS" in line and "failed to connect" in line.lower():
                driver.send_signal(signal.SIGKILL)
    assert is_called, "".join(said[-30:])
    return driver.returncode, "".join(said[-60:])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_dies_is_replaced_by_one_that_comes_and_no_bit_differs(tmp_path: Path, undisturbed: Path) -> None:
    with Cluster() as cluster:
        node = cluster.add()

        def replace() -> None:
            node.kill()
            cluster.add()

        code, said = drive(cluster, tmp_path / "root", 0, replace)
    assert code == 0, said
    check_equal(undisturbed, tmp_path / "root")
    assert events(tmp_path / "root") == events(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_goes_on_with_the_nodes_that_are_left(tmp_path: Path, undisturbed: Path) -> None:
    with Cluster() as cluster:
        node = cluster.add()
        code, said = drive(cluster, tmp_path / "root", 1, node.kill)
    assert code == 0, said
    found, wanted = events(tmp_path / "root"), events(undisturbed)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    soon = 2 * KILL_AT  # from then on the rounding of other sums has grown: this learning rate is a high one
    assert [line["loss"] for line in found[:soon]] == pytest.approx([line["loss"] for line in wanted[:soon]], rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_stands_still_again_and_again_changes_no_bit(tmp_path: Path, undisturbed: Path) -> None:
    done, threads = threading.Event(), []
    with Cluster() as cluster:
        node = cluster.add()

        def stall() -> None:
            threads.append(threading.Thread(target=node.stall, args=(5, 3.0, done)))
            threads[0].start()

        try:
            code, said = drive(cluster, tmp_path / "root", 0, stall)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert code == 0, said
    check_equal(undisturbed, tmp_path / "root")
    assert events(tmp_path / "root") == events(undisturbed)


DRAIN = """
import sys, time
import ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
ray.init(address=sys.argv[1], log_to_driver=False)
(node,) = [n["NodeID"] for n in ray.nodes() if n["Alive"] and "node:__internal_head__" not in n["Resources"]]
client = GcsClient(address=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*client.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "spot", time.time_ns() // 1_000_000 + 30_000), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_is_told_to_go_leaves_a_checkpoint_and_no_bit_differs(tmp_path: Path, undisturbed: Path) -> None:
    with Cluster() as cluster:
        node, folder = cluster.add(), tmp_path / "root/train/checkpoints"
        drainer = subprocess.Popen(
            [sys.executable, "-c", DRAIN, cluster.address],
            env=cluster.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

        def drain() -> None:
            said, _ = drainer.communicate("go\n")
            assert said.startswith("True"), said
            kept = wait_for(lambda: [path.name for path in folder.glob("*/step-*")])
            assert kept, "no checkpoint, and the run makes none of itself before its end"
            assert 0 < int(kept[0].removeprefix("step-")) < STEPS
            node.kill()
            cluster.add()

        with drainer:
            assert drainer.stdout is not None
            assert drainer.stdout.readline() == "ready\n"
            code, said = drive(cluster, tmp_path / "root", 0, drain, save_every=2 * STEPS)
    assert code == 0, said
    check_equal(undisturbed, tmp_path / "root")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_whose_head_dies_goes_on_with_another_head_and_no_bit_differs(tmp_path: Path, undisturbed: Path) -> None:
    with Cluster() as cluster:
        head = cluster.nodes[0]
        cluster.add()
        code, _ = drive(cluster, tmp_path / "root", 0, head.kill)
        assert code != 0
        assert not os.path.exists(tmp_path / "root/model" / checkpoint.NAME)
    with Cluster() as cluster:
        cluster.add()
        code, said = drive(cluster, tmp_path / "root", 0, lambda: None)
    assert code == 0, said
    check_equal(undisturbed, tmp_path / "root")
    assert events(tmp_path / "root") == events(undisturbed)
