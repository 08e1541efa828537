"""Mirrors of the events for those who watch: TensorBoard and Weights & Biases. The truth is events.jsonl.

in      events of steps; numbers only
out     root/train/tensorboard/RUN (a local root only), a run at Weights & Biases
law     a mirror changes nothing: none is asked for its state; steps that are done again replace those of before
"""

import importlib.util
from typing import Any

from model import files, runs
from model.config import TrainConfig
from model.events import Event

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Trackers:
    """The mirrors that the settings ask for, of one run from one step on. Raises ValueError for one that is not installed."""

    def __init__(self, config: TrainConfig, run: str, step: int):
        for name in config.track:
            if importlib.util.find_spec(PACKAGES[name]) is None:
                raise ValueError(f"train: --track {name} needs the package {PACKAGES[name]}: pip install {PACKAGES[name]}")
        self._board: Any = None
        self._wandb: Any = None
        if "tensorboard" in config.track and not files.is_remote(config.root):
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(files.join(config.root, "train", "tensorboard", run), purge_step=step + 1)
        if "wandb" in config.track:
            import wandb  # pyright: ignore[reportMissingImports]

            self._wandb = wandb.init(id=run, name=run, resume="allow", config=runs.result_fields(config))

    def add(self, event: Event) -> None:
        """One event."""
        values = {f"train/{name}": value for name, value in event.items() if isinstance(value, int | float) and name != "step"}
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, event["step"])
        if self._wandb is not None:
            self._wandb.log(values, step=event["step"])

    def close(self) -> None:
        """Write what is held back."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
