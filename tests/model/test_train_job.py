"""jobs/train.py through Ray Train for real: two workers, one of them killed."""

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch

from jobs import train as job
from model import checkpoint, runs
from tests.model.ranks_helper import run_ranks
from tests.model.small import small_run
from tests.model.test_train import rank_run

CHANGES: dict[str, object] = {"num_workers": 2, "num_samples": 16 * 150, "checkpoint_every_steps": 50}


def kill_a_worker(events: Path, killed: list[int], done: threading.Event) -> None:
    """Wait for step 60, then SIGKILL one of this process's own Ray Train workers."""
    while not done.wait(0.01):
        if events.exists() and len(events.read_text().splitlines()) >= 60:
            for process in psutil.Process().children(recursive=True):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_is_replaced_and_the_end_is_that_of_an_undisturbed_run(
    ray_address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = small_run(tmp_path / "ray", **CHANGES)
    done, killed = threading.Event(), []
    thread = threading.Thread(target=kill_a_worker, args=(Path(runs.events_path(config)), killed, done))
    thread.start()
    try:
        job.main(config)
    finally:
        done.set()
        thread.join()
    assert len(killed) == 1
    small_run(tmp_path / "plain", **CHANGES)
    run_ranks(2, tmp_path / "ranks", rank_run, str(tmp_path / "plain"), CHANGES)
    one, other = (checkpoint.load_model(str(tmp_path / name / "model"))[0].state_dict() for name in ("ray", "plain"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    capfd.readouterr()
    job.main(config)
    assert "already done: clip-" in capfd.readouterr().out


def test_what_can_not_be_trained_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "mini", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        job.entry(job.main, job.RECIPES, None)
    assert stop.value.code == 2
    assert "6_shards has no _MANIFEST.json: the stage that makes it has not finished" in capsys.readouterr().err
