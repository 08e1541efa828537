"""Checkpoints that a thread writes: what was saved is what is read, one at a time, within a budget, errors told at once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import checkpoint, files
from model.saving import Saver


class Gate:
    """Stands before files.write: lets writers through when it is open."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self._write = files.write

    def __call__(self, path: str, data: bytes) -> None:
        assert self.is_open.wait(60)
        self._write(path, data)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A disk that is as slow as the test wants."""
    made = Gate()
    monkeypatch.setattr(files, "write", made)
    yield made
    made.is_open.set()


def tensors(value: float) -> dict[str, Tensor]:
    return {"a": torch.full((50, 40), value), "b": torch.full((3,), value, dtype=torch.bfloat16), "step": torch.tensor(value)}


def saver(folder: Path, told: list[str], *, budget: float = 1.0, keep: int = 2) -> Saver:
    return Saver(str(folder), keep=keep, budget=budget, say=told.append)


def newest(folder: Path) -> tuple[dict[str, Tensor], int] | None:
    found = checkpoint.load_newest(str(folder), print)
    return None if found is None else (checkpoint.unpack(found[0]["x.safetensors"], "x"), found[1])


def test_what_is_written_is_the_state_at_the_call_whatever_comes_after(gate: Gate, tmp_path: Path) -> None:
    state, first = tensors(1), tensors(1)
    with saver(tmp_path, []) as own:
        for step in (1, 2, 3):
            assert own.has_room(step, must=False)
            own.save(step, {"x.safetensors": state, "y.json": b"{}"}, {"step": step})
            for tensor in state.values():  # the next step changes the weights in place while the writer still waits
                tensor.mul_(2)
            gate.is_open.set()
            own.flush()
            gate.is_open.clear()
            found = newest(tmp_path)
            assert found is not None
            assert found[1] == step
            assert all(torch.equal(found[0][name], tensor * 2 ** (step - 1)) for name, tensor in first.items())
    assert checkpoint.list_steps(str(tmp_path)) == [2, 3]
    assert own.num_saved == 3


def test_one_is_written_at_a_time_and_one_that_would_cost_too_much_is_left_out(gate: Gate, tmp_path: Path) -> None:
    told: list[str] = []
    with saver(tmp_path, told, budget=0.0) as own:
        assert own.has_room(1, must=False)
        own.save(1, {"x.safetensors": tensors(1)}, {})
        assert not own.has_room(2, must=False)
        assert told == [
            "the checkpoint of step 2 is left out: the one before is still being written, and waiting would take more than 0% of "
            "the run's time; raise checkpoint_every_steps or save_budget"
        ]
        gate.is_open.set()
        assert own.has_room(3, must=True)  # waits, whatever the budget says
        assert newest(tmp_path) is not None
        own.save(3, {"x.safetensors": tensors(3)}, {})
    assert checkpoint.list_steps(str(tmp_path)) == [1, 3]
    summary = own.summary(1000.0)
    assert (summary["checkpoints"], summary["checkpoints_left_out"]) == (2, 1)
    assert 0 < summary["checkpoint_share"] == summary["checkpoint_seconds"] / 1000
    assert summary["checkpoint_writer_seconds"] > 0


def save_where_a_file_is(folder: Path, *, flush: bool = False, error: str = "") -> None:
    """Save a checkpoint in a folder that can not be made, and go on."""
    folder.write_text("a file where the folder should be")
    with saver(folder, []) as own:
        own.save(1, {"x.safetensors": tensors(1)}, {})
        if flush:
            own.flush()
            raise AssertionError("flush hid the error")
        if error:
            raise ArithmeticError(error)


def test_an_error_of_the_writer_is_raised_by_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="run"):
        save_where_a_file_is(tmp_path / "run", flush=True)
    with pytest.raises(OSError, match="run"):  # of the last checkpoint: it is the end's
        save_where_a_file_is(tmp_path / "run")


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_writer(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match="the run's own"):
        save_where_a_file_is(tmp_path / "run", error="the run's own")


def test_finished_checkpoints_are_kept_though_newer_ones_are_not_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint.save_folder(checkpoint.step_folder(str(tmp_path), step), {"a": b"a"}, {})
    for step in (2, 4):
        (tmp_path / f"step-0000000{step}" / checkpoint.NAME).unlink()  # processes were killed while they wrote these
    checkpoint.prune(str(tmp_path), 2)
    assert checkpoint.list_steps(str(tmp_path)) == [1, 2, 3, 4]
    checkpoint.prune(str(tmp_path), 1)
    assert checkpoint.list_steps(str(tmp_path)) == [3, 4]


def test_a_store_holds_the_same_checkpoints_as_a_disk(root: str) -> None:
    with Saver(f"{root}/run", keep=1, budget=1.0, say=print) as own:
        for step in (1, 2):
            assert own.has_room(step, must=False)
            own.save(step, {"x.safetensors": tensors(step)}, {"step": step})
    found = checkpoint.load_newest(f"{root}/run", print)
    assert found is not None
    assert found[1] == 2
    assert torch.equal(checkpoint.unpack(found[0]["x.safetensors"], "x")["a"], torch.full((50, 40), 2.0))
    assert checkpoint.list_steps(f"{root}/run") == [2]
