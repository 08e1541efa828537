"""Evaluation beside a training: every checkpoint is scored, also those that appear while it looks."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import torch

from jobs import evaluate as job
from jobs._page import score_plots
from jobs._watch import checkpoints, finished, watch
from model import files
from model.evaluate.config import EvaluateConfig
from model.report import collect
from model.train import train
from tests.model.evaluation_set import COLORS, write_set
from tests.model.small import small_run


def test_every_checkpoint_of_a_training_is_scored_beside_it(tmp_path: Path) -> None:
    write_set(tmp_path / "colors", classes=list(COLORS))
    run = small_run(tmp_path, keep_checkpoints=10, save_budget=1.0)
    config = EvaluateConfig(root=str(tmp_path), eval_set=str(tmp_path / "colors"), watch=True, watch_seconds=0.05)
    assert not finished(str(tmp_path))
    training = threading.Thread(target=train, args=(run, lambda event: None, torch.device("cpu")))
    training.start()
    job.main(config)  # returns when the training is finished
    training.join()
    paths = checkpoints(str(tmp_path))
    assert [int(path.rsplit("-", 1)[1]) for path in paths] == [4, 8, 12]
    curves = collect(str(tmp_path)).scores
    assert sorted(row["step"] for row in curves if row["headline"]) == [4, 8, 12]
    titles = [title for title, _ in score_plots(collect(str(tmp_path)))]
    assert titles == ["accuracy of colors (zero_shot) while training"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "evaluation").rglob("*.parquet")}
    assert before
    job.main(config)  # all is there already
    assert before.items() >= {p: p.stat().st_mtime_ns for p in before if not p.name.startswith("_")}.items()
    last = json.loads(next((tmp_path / "evaluation/models").glob("*-step-00000012/colors.json")).read_text())
    job.main(replace(config, watch=False))
    assert json.loads((tmp_path / "evaluation/colors.json").read_text())["values"] == last["values"]


def test_a_checkpoint_that_goes_away_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "train/checkpoints/clip-1/step-00000004"
    for path, content in ((folder / "_MANIFEST.json", {}), (tmp_path / "model/_MANIFEST.json", {"run": "clip-1"})):
        files.write(str(path), json.dumps(content).encode())
    files.write(str(tmp_path / "train/events.jsonl"), b'{"run": "clip-1"}\n')

    def gone(config: EvaluateConfig) -> None:
        (folder / "_MANIFEST.json").unlink()
        raise ValueError("no manifest")

    assert watch(EvaluateConfig(root=str(tmp_path)), gone) == 0
