"""A root with a training's events, a model's manifest and an evaluation, for the tests of the report."""

import json
from pathlib import Path

import numpy as np

from model.evaluate import results
from model.evaluate.config import EvaluateConfig
from model.evaluate.layouts import open_set
from model.evaluate.tasks import Result
from model.evaluate.workspace import Workspace
from tests.model.evaluation_set import COLORS, ColorEncoder, write_set

RUN = "clip-0123456789ab"


def events(num_steps: int = 60) -> list[dict[str, float | str]]:
    """A curve as model/train.py tells it."""
    return [
        {
            "run": RUN, "step": step, "num_steps": num_steps, "samples_seen": 256 * step, "logit_scale": 14 + step / 20,
            "loss": 5.5 * 0.97**step, "grad_norm": 1.0, "lr": 1e-3 * (1 - step / num_steps), "pairs_per_second": 900.0 + step % 7,
            "data_wait_share": 0.01, "eta_seconds": 1.0,
        }
        for step in range(1, num_steps + 1)
    ]  # fmt: skip


def build(root: Path, classes: list[str] | None = None) -> dict:
    """Write all of it; returns the evaluation's summary. `classes`: names to show instead of the colours'."""
    lines = [json.dumps({**event, "run": "an older run"}) for event in events(5)] + [json.dumps(event) for event in events()]
    (root / "train").mkdir(parents=True)
    (root / "train/events.jsonl").write_text("\n".join(lines) + '\n{"step": 61, "lo')
    (root / "model").mkdir()
    facts = {
        "run": RUN,
        "step": 60,
        "samples_seen": 15360,
        "bad": {},
        "files": [{"name": "model.safetensors", "num_bytes": 4_800_000, "sha256": "ab" * 32}],
    }
    (root / "model/_MANIFEST.json").write_text(json.dumps(facts))
    (root / "model/config.json").write_text(json.dumps({"embed_dim": 128}))
    write_set(root / "set", classes=list(COLORS), num_pictures=36)
    if classes:
        (root / "set/classnames.txt").write_text("\n".join(classes))
    eval_set = open_set(str(root / "set"))
    config = EvaluateConfig(root=str(root), eval_set=str(root / "set"), num_examples=6)
    embedded = Workspace(config, "m" * 64, encoder=ColorEncoder()).embedded(eval_set, "test")
    rng, labels = np.random.default_rng(0), embedded.labels
    ranked = np.stack([rng.permutation(len(COLORS))[:5] for _ in labels])
    ranked[::2, 0] = labels[::2]
    shown = [place for wanted in (True, False) for place in np.flatnonzero((ranked[:, 0] == labels) == wanted)[:6]]
    pictures = {place: embedded.thumbnails[place] for place in shown}
    probabilities = np.asarray([[0.5, 0.2, 0.1, 0.1, 0.05]] * len(labels), np.float32)
    predictions = results.Predictions(
        keys=embedded.keys, labels=labels, ranked=ranked, probabilities=probabilities, pictures=pictures
    )  # fmt: skip
    facts = {"objective": "contrastive", "logit_scale": 20.0}
    result = Result(
        task="zero_shot", set="set", values={"accuracy": 0.5}, num_pictures=len(labels), rows=results.rows(predictions),
        facts=results.classes(eval_set, embedded, ranked, facts, "sum"),
    )  # fmt: skip
    return results.write(config, "zero_shot", result, results.identity("m" * 64, eval_set, "zero_shot", {}))
