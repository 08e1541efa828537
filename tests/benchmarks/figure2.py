"""The paper's figure 2 on the mini dataset: zero-shot accuracy against pictures processed, for each objective.

    python -m tests.benchmarks.figure2 --root out/mini      # after `make mini`; half an hour of one core

Trains each objective with each seed by the job's own loop: one image tower, batch, data order, optimiser and budget, only
`model.objective` differs. At some points of each training the checkpoint classifies test pictures, five of each class, by
two prompts a class; a model that predicts texts is scored by each rule of evaluate/likelihood. Writes
root/figure2/OBJECTIVE-SEED/points.json, prints a table and draws the plot. Runs that are there are not run again; the plot
shows those that are asked for.

compare  with the paper only the order of the arms: its x axis goes to 400 million pictures and here each picture is seen
         some seven times. Batch and learning rate are smaller than the recipe's, chosen after one run of the
         contrastive arm and before any other; no setting is tuned for an arm
"""

import argparse
import json
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from matplotlib.figure import Figure

from model import checkpoint, objectives, runs
from model.config import Objective, TrainConfig
from model.evaluate import datasets, layouts, zero_shot
from model.evaluate.config import Likelihood
from model.evaluate.datasets import EvalSet
from model.evaluate.encoders import Encoder
from model.recipes import mini
from model.tokenizer import Tokenizer
from model.train import train

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the training, where accuracy is measured
EVERY = 2  # of the test pictures' rounds (a round is one of each class) every second is scored, and
NUM_PROMPTS = 2  # of the set's are read for each class: the language model reads every prompt for each picture
GLOBAL_BATCH, LEARNING_RATE = 64, 1e-3  # the recipe's 256 make too few steps of so few images
RULES: tuple[Likelihood, ...] = get_args(Likelihood)
BATCH = 75
STYLES = {
    "contrastive": ("contrastive, transformer", "#c0392b"),
    "sigmoid": ("sigmoid, transformer", "#e08e0b"),
    "contrastive_bag_of_words": ("contrastive, bag of words", "#2c7a3f"),
    "bag_of_words": ("bag of words prediction", "#2563a8"),
    "caption": ("transformer language model", "#6b3fa0"),
}
Points = list[dict[str, float]]  # images, and top1 by rule


def config_of(root: Path, objective: Objective, seed: int, num_steps: int) -> TrainConfig:
    """The mini recipe in one process, with small batches for a short run, which keeps a checkpoint for each point."""
    recipe = mini()
    return replace(
        recipe,
        optimizer=replace(recipe.optimizer, learning_rate=LEARNING_RATE),
        global_batch=GLOBAL_BATCH,
        root=str(root / "figure2" / f"{objective}-{seed}"),
        model=replace(recipe.model, objective=objective),
        num_workers=1,
        seed=seed,
        num_samples=num_steps * GLOBAL_BATCH,
        checkpoint_every_steps=int(num_steps * SHARES[0]),
        keep_checkpoints=round(1 / SHARES[0]),
        save_budget=1.0,  # every one is scored
    )


def accuracies(model: objectives.Model, tokenizer: Tokenizer, eval_set: EvalSet, resolution: int) -> dict[str, float]:
    """Top-1 by each rule that fits the model."""
    encoder = Encoder(model, tokenizer, resolution)
    examples = [example for unit in eval_set.split("test").units for example in layouts.examples(eval_set, unit)]
    examples = [example for place, example in enumerate(examples) if place // len(eval_set.classnames) % EVERY == 0]
    if isinstance(model, objectives.Predictor):
        scorers = {rule: zero_shot.by_likelihood(encoder, eval_set, rule) for rule in RULES}
    else:
        scorers = {"cosines": zero_shot.by_cosines(zero_shot.class_features(encoder, eval_set, BATCH), encoder.facts())}
    rights: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        images = [image for example in batch if not isinstance(image := datasets.decode(example.picture), str)]
        features, _ = encoder.images(np.stack([datasets.preprocess(image, resolution) for image in images]))
        labels = np.asarray([example.labels[0] for example in batch])
        for rule, score in scorers.items():
            rights[rule].append(score(features)[0].argmax(1) == labels)
    return {rule: float(np.concatenate(parts).mean()) for rule, parts in rights.items()}


def measure(config: TrainConfig, shards: Path, eval_set: EvalSet) -> Points:
    """Train one model, unless that is done, and score its checkpoints."""
    root = Path(config.root)
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "6_shards").exists():
        (root / "6_shards").symlink_to(shards.resolve())
    run, path = runs.run_name(config), root / "points.json"
    identity = {"run": run, "set": eval_set.hash, "prompts": eval_set.templates, "every": EVERY, "shares": SHARES}
    identity = json.loads(json.dumps(identity))
    if path.exists() and (known := json.loads(path.read_text())).get("identity") == identity:
        return known["points"]
    start = time.process_time()
    if runs.finished(config, run) is None:
        train(config, lambda event: None, torch.device("cpu"))
    points = []
    for share in SHARES:
        step = int(config.num_steps * share)
        contents, _ = checkpoint.load_folder(checkpoint.step_folder(runs.checkpoints_folder(config, run), step))
        tokenizer = Tokenizer.from_bytes(contents["tokenizer.json"])
        text = replace(config.model.text, vocab_size=tokenizer.vocab_size)
        model = objectives.build(replace(config.model, text=text)).eval()
        checkpoint.load_weights(model, checkpoint.unpack(contents["model.safetensors"], "model.safetensors"), run)
        found = accuracies(model, tokenizer, eval_set, config.model.vision.image_resolution)
        points.append({"images": step * config.global_batch, **found})
        print(
            f"{root.name:<28}{points[-1]['images']:>9,} images  " + "  ".join(f"{k} {v:.1%}" for k, v in found.items()),
            flush=True,
        )
    path.write_text(json.dumps({"identity": identity, "cpu_seconds": round(time.process_time() - start), "points": points}))
    return points


def print_table(results: dict[str, list[Points]]) -> None:
    """A row for each objective and rule: the mean and the extremes over the seeds at each point."""
    images = [int(point["images"]) for point in next(iter(results.values()))[0]]
    print("\n| objective | scored by | seeds | " + " | ".join(f"{count:,} images" for count in images) + " |")
    print("|" + " --- |" * (3 + len(images)))
    for objective, seeds in results.items():
        for rule in (name for name in seeds[0][0] if name != "images"):
            cells = []
            for place in range(len(images)):
                values = [points[place][rule] for points in seeds]
                cells.append(f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})")
            print(f"| {STYLES[objective][0]} | {rule} | {len(seeds)} | " + " | ".join(cells) + " |")


def draw(results: dict[str, list[Points]], chance: float, path: Path) -> None:
    """A line for each objective: the mean of the seeds, each seed a dot; predictive models by `sum`, dashed by `per_token`."""
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for objective, seeds in results.items():
        name, color = STYLES[objective]
        rules = {"sum": "-", "per_token": "--"} if "sum" in seeds[0][0] else {"cosines": "-"}
        images = [point["images"] for point in seeds[0]]
        for rule, line in rules.items():
            values = np.asarray([[point[rule] for point in points] for points in seeds]) * 100
            label = f"{name}, per token" if rule == "per_token" else name
            axes.plot(images, values.mean(0), line, color=color, label=label, linewidth=1.8)
            axes.plot(images, values.T, ".", color=color, markersize=4)
    axes.axhline(100 * chance, color="#888888", linewidth=1, linestyle=":", label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(images, [f"{count / 1000:.0f}k" for count in images])
    axes.set_xlabel("images processed")
    axes.set_ylabel("zero-shot top-1, %")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("out/mini"), help="the root of a mini run (default: out/mini)")
    parser.add_argument("--objectives", nargs="+", choices=list(STYLES), default=list(STYLES), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=int, default=1024, help="of each training, a multiple of 8 (default: 1024)")
    parser.add_argument("--plot", type=Path, default=None, help="PNG to draw (default: ROOT/figure2/figure2.png)")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    eval_set = layouts.open_set(str(options.root / "web" / "test"))
    eval_set = replace(eval_set, templates=eval_set.templates[:NUM_PROMPTS])
    results: dict[str, list[Points]] = defaultdict(list)
    for seed in options.seeds:
        for objective in options.objectives:
            config = config_of(options.root, objective, seed, options.steps)
            results[objective].append(measure(config, options.root / "6_shards", eval_set))
    print_table(results)
    draw(results, 1 / len(eval_set.classnames), options.plot or options.root / "figure2" / "figure2.png")


if __name__ == "__main__":
    main()
