"""A run whose machines come and go: ranks that do not share the lanes, notices that a machine or the run is to go."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from model import checkpoint, ranks, runs
from model.train import END, SAVE, train
from tests.model.ranks_helper import run_ranks
from tests.model.small import small_run
from tests.model.test_train import CPU, REPOSITORY, events, rank_run, run, undisturbed, weights  # noqa: F401
from tests.model.test_train_options import curve, without_batch_norm


def check_equal(one: Path, other: Path) -> None:
    """The same weights, bit for bit."""
    wanted = weights(one)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(other).items())


def test_the_ranks_that_are_used_are_the_most_that_share_the_lanes() -> None:
    for num_lanes in range(1, 40):
        for world_size in range(1, 40):
            size = ranks.usable(world_size, num_lanes)
            assert size <= world_size
            assert num_lanes % size == 0
            assert not [more for more in range(size + 1, world_size + 1) if num_lanes % more == 0]


def elastic_run(rank: int, root: str) -> list[float]:
    """What one of three ranks reports, of a run that Ray Train may give one to three."""
    changes: dict[str, object] = {"num_workers": 4, "min_workers": 1, "model": without_batch_norm()}
    return curve(run(Path(root), **changes))


def test_a_rank_too_many_has_nothing_to_do_and_the_batches_are_the_same(tmp_path: Path) -> None:
    wanted = curve(run(tmp_path / "one", model=without_batch_norm()))
    small_run(tmp_path / "three")
    first, second, third = run_ranks(3, tmp_path / "ranks", elastic_run, str(tmp_path / "three"))
    assert first == pytest.approx(wanted, rel=1e-4)
    assert second == third == []


def test_a_notice_is_answered_with_a_checkpoint_and_changes_no_weight(
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    answers = iter([*[None] * 5, SAVE, *[None] * 6])
    train(small_run(tmp_path, keep_checkpoints=9), lambda event: None, CPU, lambda: next(answers))
    (folder,) = (tmp_path / "train" / "checkpoints").iterdir()
    steps = [int(path.name.removeprefix("step-")) for path in sorted(folder.iterdir())]
    assert steps == [4, 6, 8, 12]
    check_equal(undisturbed, tmp_path)


def test_a_run_that_is_told_to_end_goes_on_from_there(
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    answers = iter([*[None] * 6, END])
    with pytest.raises(SystemExit, match="told to end after step 7"):
        train(small_run(tmp_path), lambda event: None, CPU, lambda: next(answers))
    assert not (tmp_path / "model" / checkpoint.NAME).exists()
    assert run(tmp_path)[0]["step"] == 8
    check_equal(undisturbed, tmp_path)
    assert events(tmp_path) == events(undisturbed)


RUN = """
import sys
from pathlib import Path
from jobs.train import main
from tests.model.small import small_run
main(small_run(Path(sys.argv[1]), num_workers=2, num_samples=16 * 400, checkpoint_every_steps=1000))
"""


@pytest.mark.slow
def test_torchrun_that_is_told_to_end_leaves_a_checkpoint_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    for name in ("torchrun", "ranks"):
        small_run(tmp_path / name)
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "run.py")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command, told = [*command, str(tmp_path / "torchrun")], threading.Event()
    changes: dict[str, object] = {"num_workers": 2, "num_samples": 16 * 400, "checkpoint_every_steps": 1000}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as launched:
        assert launched.stdout is not None
        said = []
        for line in launched.stdout:
            said.append(line)
            if "step" in line and "30" in line and not told.is_set():
                told.set()
                launched.send_signal(signal.SIGTERM)
    assert told.is_set(), "".join(said)
    assert any("is written, because the run is to go" in line for line in said), "".join(said)
    assert not runs.finished(small_run(tmp_path / "torchrun", **changes), runs.run_name(small_run(tmp_path / "ranks", **changes)))
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)
    run_ranks(2, tmp_path / "out", rank_run, str(tmp_path / "ranks"), changes)
    check_equal(tmp_path / "ranks", tmp_path / "torchrun")
