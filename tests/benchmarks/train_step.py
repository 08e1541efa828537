"""A training step of ViT-B/32 and of RN50 at batch 64 in float32: ours beside open_clip's, same weights, batch, threads.

    python -m tests.benchmarks.train_step [MODEL ...]

A step: both towers, contrastive loss, backward, AdamW with the paper's groups, clamp of the logit scale. Each side runs as its
own trainer would: ours with the memory order that is faster on a CPU and our optimiser, open_clip with its model, loss and AdamW
as its `main.py` makes them. Every text has all 77 tokens. The losses of the first step must agree. Sides take turns; medians of
this process's CPU seconds, all threads together, because the machine may be shared; wall seconds are printed beside. Ends with
`train_step ratio=X.XX`, the smaller of the models' ratios, theirs over ours.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from model import optimizer
from model.clip import CLIP
from model.compute import use
from model.config import MAX_LOGIT_SCALE, ComputeConfig, OptimizerConfig
from model.gradients import FlatGradients
from model.loss import contrastive_loss
from model.recipes import MODELS
from tests.model.peers import import_open_clip

BATCH = 64
ROUNDS = 2  # after one that warms up
THREADS = 2
Step = Callable[[], float]


def batch_of(resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and full texts of a fixed draw.  -> [B, 3, R, R] float32, [B, 77]"""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 49_000, (BATCH, 77), generator=generator)
    tokens[:, 0], tokens[:, -1] = 49_406, 49_407
    return torch.randn(BATCH, 3, resolution, resolution, generator=generator), tokens


def our_step(name: str, settings: OptimizerConfig) -> tuple[CLIP, Step]:
    """Our model and one step of it."""
    torch.manual_seed(0)
    model = CLIP(MODELS[name]).train()
    use(model, ComputeConfig())
    updater = optimizer.make(model, settings)
    grads = FlatGradients(model, torch.device("cpu"))
    images, tokens = batch_of(MODELS[name].vision.image_resolution)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> float:
        grads.zero()
        loss = contrastive_loss(*model(images, tokens))
        loss.backward()
        updater.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        return float(loss.detach())

    return model, step


def their_step(name: str, weights: dict[str, torch.Tensor], settings: OptimizerConfig) -> Step:
    """One step of open_clip's model with the same weights."""
    open_clip = import_open_clip()
    model = open_clip.create_model(f"{name.replace('/', '-')}-quickgelu", pretrained=None).train()
    model.load_state_dict(weights)
    excluded = [
        p for n, p in model.named_parameters() if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    ]
    chosen = {id(p) for p in excluded}
    groups = [
        {"params": excluded, "weight_decay": 0.0},
        {"params": [p for p in model.parameters() if id(p) not in chosen], "weight_decay": settings.weight_decay},
    ]
    updater = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
    loss_of = open_clip.ClipLoss()
    images, tokens = batch_of(MODELS[name].vision.image_resolution)

    def step() -> float:
        updater.zero_grad()
        loss = loss_of(*model(images, tokens)[:3])
        loss.backward()
        updater.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return float(loss.detach())

    return step


def compare(name: str) -> float:
    """Print a line for each side and their ratio."""
    settings = replace(OptimizerConfig(), learning_rate=1e-5)
    model, ours = our_step(name, settings)
    theirs = their_step(name, {key: value.clone() for key, value in model.state_dict().items()}, settings)
    seconds: dict[str, list[float]] = {"ours": [], "open_clip": []}
    walls: dict[str, list[float]] = {"ours": [], "open_clip": []}
    losses: dict[str, list[float]] = {"ours": [], "open_clip": []}
    for _ in range(ROUNDS + 1):
        for side, step in (("ours", ours), ("open_clip", theirs)):
            started, started_wall = time.process_time(), time.perf_counter()
            losses[side].append(step())
            seconds[side].append(time.process_time() - started)
            walls[side].append(time.perf_counter() - started_wall)
    assert abs(losses["ours"][0] - losses["open_clip"][0]) < 1e-4, losses
    medians = {side: statistics.median(values[1:]) for side, values in seconds.items()}
    for side, median in medians.items():
        spread, wall = " ".join(f"{value:.1f}" for value in seconds[side]), statistics.median(walls[side][1:])
        print(f"{name:<9} {side:<10} {median:>6.1f} CPU s  {wall:>6.1f} s  {BATCH / wall:>5.2f} pairs/s  ({spread})")
    ratio = medians["open_clip"] / medians["ours"]
    print(f"{name:<10} ratio      {ratio:>7.2f}", flush=True)
    return ratio


def main() -> None:
    """Both models, or those that are named."""
    torch.set_num_threads(THREADS)
    ratios = [compare(name) for name in (sys.argv[1:] or ["ViT-B/32", "RN50"])]
    print(f"train_step ratio={min(ratios):.2f}")


if __name__ == "__main__":
    main()
