"""Checkpoints off the critical path: the step only copies the state, a thread packs, hashes and writes it.

in      tensors and bytes by file name, of one step
out     a step's folder as model/checkpoint.py describes it: files, then the manifest; older ones are removed after it
law     what is written is the state at the call, whatever the steps after it do; at most one checkpoint is being written
law     the writer's error is raised by the next step's `check`, not at the end of the run
law     a checkpoint that must be (the run's last) is always written; of the others one is left out, and this is told, where
        waiting for the one before it would take more than the budget: a share of the run's time so far
cost    memory: the state once more on the host (kept, and written over each time), and once packed while it is written
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from model import checkpoint

Contents = Mapping[str, Mapping[str, Tensor] | bytes]  # file name -> tensors, to be packed, or bytes
WAIT_FOR_EVER = 1.0  # a budget from which on no checkpoint is left out


class Saver:
    """Writes the checkpoints of a run, one after the other. Used as a context, which ends when the last one is written."""

    def __init__(self, folder: str, *, keep: int, budget: float, say: Callable[[str], None]):
        self._folder, self._keep, self._budget, self._say = folder, keep, budget, say
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._start = time.monotonic()
        self.lost_seconds = 0.0  # of the steps' time
        self.num_saved = self.num_left_out = 0
        self.writing_seconds = 0.0  # of the writer's time

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.shutdown(wait=True)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written."""
        if self._pending is not None and self._pending.done():
            done, self._pending = self._pending, None
            done.result()

    def flush(self) -> None:
        """Return when what was begun is written."""
        if self._pending is not None:
            wait([self._pending])
        self.check()

    def has_room(self, step: int, *, must: bool) -> bool:
        """Whether the step's checkpoint is to be written: waits for the one before, as long as the budget allows or it must."""
        started = time.monotonic()
        if self._pending is not None:
            left = self._budget * (started - self._start) - self.lost_seconds
            wait([self._pending], None if must or self._budget >= WAIT_FOR_EVER else max(0.0, left))
        room = self._pending is None or self._pending.done()
        if room:
            self.check()
        else:
            self.num_left_out += 1
            self._say(
                f"the checkpoint of step {step} is left out: the one before is still being written, and waiting would take more "
                f"than {self._budget:.0%} of the run's time; raise checkpoint_every_steps or save_budget"
            )
        self.lost_seconds += time.monotonic() - started
        return room

    def save(self, step: int, contents: Contents, facts: Mapping[str, Any]) -> None:
        """Copy the state and begin to write it. `has_room` said so."""
        started = time.monotonic()
        copied = {name: value if isinstance(value, bytes) else self._copy(name, value) for name, value in contents.items()}
        if any(tensor.is_cuda for value in contents.values() if not isinstance(value, bytes) for tensor in value.values()):
            torch.cuda.synchronize()  # the copies run beside this thread; the next step changes what they read
        self._pending = self._writer.submit(self._write, step, copied, facts)
        self.num_saved += 1
        self.lost_seconds += time.monotonic() - started

    def _copy(self, file: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors in the host memory that the copies before had."""
        copied = {}
        for name, tensor in tensors.items():
            own = self._copies.get((file, name))
            if own is None or own.shape != tensor.shape or own.dtype != tensor.dtype:
                own = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                self._copies[file, name] = own
            copied[name] = own.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        return copied

    def _write(self, step: int, copied: Contents, facts: Mapping[str, Any]) -> None:
        started = time.monotonic()
        packed = {name: value if isinstance(value, bytes) else checkpoint.pack(value) for name, value in copied.items()}
        checkpoint.save_folder(checkpoint.step_folder(self._folder, step), packed, facts)
        checkpoint.prune(self._folder, self._keep)
        self.writing_seconds += time.monotonic() - started

    def summary(self, seconds: float) -> dict[str, float]:
        """What checkpoints took of a run of so many seconds."""
        return {
            "checkpoints": self.num_saved,
            "checkpoints_left_out": self.num_left_out,
            "checkpoint_seconds": self.lost_seconds,
            "checkpoint_share": self.lost_seconds / max(seconds, 1e-9),
            "checkpoint_writer_seconds": self.writing_seconds,
        }
