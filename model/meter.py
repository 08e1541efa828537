"""The line of a step: what the run's state is, and the rates since the line before. The line of a run, at its end.

out     events for model/events.py
law     shares are of wall time; what a checkpoint takes from the steps counts as time, and is told as checkpoint_share
"""

import time

from model import objectives
from model.config import TrainConfig
from model.events import Event
from model.state import State


class Meter:
    """Rates since the last line."""

    def __init__(self, step: int):
        self._lost_seconds = 0.0
        self._restart(step)

    def _restart(self, step: int) -> None:
        self.waited_seconds = 0.0
        self._step, self._start = step, time.monotonic()

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
            "eta_seconds": (config.num_steps - state.step) / max(rate, 1e-9),
        }
        self._lost_seconds = lost_seconds
        self._restart(state.step)
        return event


def summary_line(num_steps: int, summary: Event) -> str:
    """A run's last line for people."""
    return (
        f"{num_steps:,} steps in {summary['seconds']:,.0f} s; {summary['checkpoints']} checkpoints took "
        f"{summary['checkpoint_share']:.2%} of the time from the steps ({summary['checkpoint_seconds']:.2f} s, beside them "
        f"{summary['checkpoint_writer_seconds']:.1f} s), {summary['checkpoints_left_out']} were left out"
    )
