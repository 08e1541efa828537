"""Evaluation beside a training: each new checkpoint is scored by a process of its own, which the training does not know of.

in      root/train/checkpoints/RUN/step-N, as they appear; root/train/events.jsonl and root/model tell when the run is finished
out     results of each step in root/evaluation/models/RUN-step-N; the report draws their curves
law     a checkpoint is read once its manifest is there, and by hash: a half-written one is never scored. One that the training
        removes before it is scored is told and left out
cost    the training loses nothing but what the machines share: give it its own, or leave CPUs free
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace

from model import files
from model.evaluate.config import EvaluateConfig
from model.evaluate.results import MANIFEST as NAME


def watch(config: EvaluateConfig, evaluate: Callable[[EvaluateConfig], None]) -> int:
    """Evaluate checkpoints until the run is finished and all that are left are scored; returns how many were."""
    done: set[str] = set()
    scored = 0
    while True:
        last_look = finished(config.root)
        new = [path for path in checkpoints(config.root) if path not in done]
        for path in new:
            done.add(path)
            scored += _one(replace(config, model=path, watch=False), evaluate)
        if last_look and not new:
            return scored
        if not new:
            time.sleep(config.watch_seconds)


def checkpoints(root: str) -> list[str]:
    """The folders of whole checkpoints of all runs, by run and step."""
    from model.checkpoint import list_steps, step_folder

    top = files.join(root, "train", "checkpoints")
    runs = [files.join(top, run) for run in files.names(top)]
    paths = [step_folder(run, step) for run in runs for step in list_steps(run)]
    return [path for path in paths if NAME in files.names(path)]


def finished(root: str) -> bool:
    """True when the run that the log's last line is of has left its model."""
    try:
        made = json.loads(files.read(files.join(root, "model", NAME)))["run"]
        lines = files.read(files.join(root, "train", "events.jsonl")).splitlines()
        return any(json.loads(line)["run"] == made for line in lines[-1:])
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _one(config: EvaluateConfig, evaluate: Callable[[EvaluateConfig], None]) -> bool:
    try:
        evaluate(config)
    except ValueError:
        if NAME in files.names(config.model):
            raise
        print(f"evaluate         {config.model} was removed before it was scored", flush=True)
        return False
    return True
