"""The line of a step: what the run's state is, and the rates since the line before. The line of a run, at its end.

out     events for model/events.py
law     shares are of wall time; what a checkpoint takes from the steps counts as time, and is told as checkpoint_share
"""

import resource
import time
from collections import deque
from collections.abc import Iterable, Iterator

import torch

from model import data, objectives, ranks
from model.config import ClipConfig, GuardConfig, TrainConfig
from model.events import Event, say
from model.flops import PASSES, flops_per_pair, peak_of
from model.guards import Guards, Verdict, clock_verdicts
from model.ranks import Ranks
from model.state import State


def memory_bytes(device: torch.device) -> int:
    """The most memory that this rank has had: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mfu_per_rate(config: ClipConfig, precision: str, me: Ranks) -> float | None:
    """The share of all ranks' peak that one pair per second uses; None where it is not known, and on ranks that tell nothing."""
    flops = flops_per_pair(config)
    if me.rank or flops is None:
        return None
    peak = peak_of(me.device, precision)
    say(f"a pair is {flops / 1e9:.3g} GFLOP forward; a rank's peak is {peak.flops_per_second / 1e12:.3g} TFLOP/s ({peak.source})")
    return PASSES * flops / (peak.flops_per_second * me.world_size)


class Stopwatch:
    """Adds up the times between `start` and `stop`; on a GPU by its own clock, which waits for nothing."""

    def __init__(self, device: torch.device):
        self._is_cuda, self._seconds = device.type == "cuda", 0.0
        self._begin, self._events = 0.0, deque[tuple[torch.cuda.Event, torch.cuda.Event]]()

    def start(self) -> None:
        """Begin."""
        if self._is_cuda:
            pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            pair[0].record()
            self._events.append(pair)
        self._begin = time.monotonic()

    def stop(self) -> None:
        """End."""
        if self._is_cuda:
            self._events[-1][1].record()
        else:
            self._seconds += time.monotonic() - self._begin

    def seconds(self) -> float:
        """Since the last call. What was timed must be done."""
        if self._events:
            self._events[-1][1].synchronize()
        while self._events:
            begin, end = self._events.popleft()
            self._seconds += begin.elapsed_time(end) / 1000
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Meter:
    """Rates since the last line."""

    def __init__(self, step: int, device: torch.device, mfu_per_rate: float | None = None):
        self._device, self._mfu_per_rate = device, mfu_per_rate  # share of the peak at one pair per second
        self._lost_seconds, self.is_first = 0.0, True
        self.work = Stopwatch(device)  # of this rank alone: from the batch's arrival until the ranks speak
        self._restart(step)

    def _restart(self, step: int) -> None:
        self.waited_seconds = 0.0
        self._step, self._start = step, time.monotonic()

    def clocks(self, step: int, guards: Guards, config: GuardConfig, me: Ranks) -> list[Verdict]:
        """What the clocks of all ranks tell before a line is written, but for a process's first. Called on every rank."""
        table = ranks.gather_numbers([self.waited_seconds, self.work.seconds()], me)
        verdicts = clock_verdicts(step, table, time.monotonic() - self._start, config) if not self.is_first else []
        for verdict in verdicts:
            guards.count(verdict)
        return verdicts

    def timed(self, batches: Iterable[data.Batch]) -> Iterator[data.Batch]:
        """The batches; counts the time until each is there."""
        rest = iter(batches)
        while True:
            before = time.monotonic()
            batch = next(rest, None)
            self.waited_seconds += time.monotonic() - before
            if batch is None:
                return
            yield batch

    def event(self, config: TrainConfig, state: State, lost_seconds: float, **values: float) -> Event:
        """The line of a step, and start again. `lost_seconds` to checkpoints, since the process started."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (state.step - self._step) / seconds
        event = {
            "step": state.step,
            "num_steps": config.num_steps,
            "samples_seen": state.step * config.global_batch,
            **objectives.scalars(state.model),
            **values,
            "pairs_per_second": rate * config.global_batch,
            "data_wait_share": self.waited_seconds / seconds,
            "checkpoint_share": (lost_seconds - self._lost_seconds) / seconds,
            **({} if self._mfu_per_rate is None else {"mfu": self._mfu_per_rate * rate * config.global_batch}),
            "memory_bytes": memory_bytes(self._device),
            "eta_seconds": (config.num_steps - state.step) / max(rate, 1e-9),
        }
        self._lost_seconds, self.is_first = lost_seconds, False
        self._restart(state.step)
        return event


def summary_line(num_steps: int, summary: Event) -> str:
    """A run's last line for people."""
    return (
        f"{num_steps:,} steps in {summary['seconds']:,.0f} s; {summary['checkpoints']} checkpoints took "
        f"{summary['checkpoint_share']:.2%} of the time from the steps ({summary['checkpoint_seconds']:.2f} s, beside them "
        f"{summary['checkpoint_writer_seconds']:.1f} s), {summary['checkpoints_left_out']} were left out"
    )
