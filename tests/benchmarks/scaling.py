"""What a rank adds to a step: the trainer's own step on 1, 2, 4 and 8 gloo processes, taken apart, and a model that predicts it.

    python -m tests.benchmarks.scaling

Tiny towers, the same pairs on each rank whatever the number of ranks, so that all growth is overhead. A step is the trainer's:
forward, loss with both features gathered, backward with their gradients scattered, one reduction of the gradients, AdamW. The
collectives are timed by themselves too, at several sizes. Everything is counted in CPU seconds of a rank, all its threads
together: with more ranks than cores wall-clock tells of the queue for the cores, not of the ranks. It is printed beside, with
what the model says of it: the ranks' CPU seconds over the cores there are.

The model is infra/plan/step_time.py: a ring's message and byte for each collective, fitted to 2 and 4 ranks; what a rank does
alone, the mean of 1, 2 and 4; the loss's columns, at the speed of the towers. It predicts 8, and the last line is predicted over
measured there, `scaling ratio=X.XX`. Before it the same model says what 256 GPUs take, with every assumption.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from infra.plan import tables, training
from infra.plan.config import NodeConfig, TrainPlanConfig
from infra.plan.step_time import FLOAT_BYTES, GATHERED, Links, Step, Work, fit_ring, step
from model import accumulate, objectives, ranks, train
from model.config import ClipConfig, DataConfig, TextConfig, TrainConfig, VitConfig
from model.data import Batch
from model.flops import PASSES, flops_per_pair
from model.optimizer import learning_rate
from model.state import start
from tests.model.ranks_helper import run_ranks

RANKS = (1, 2, 4, 8)
FITTED = (1, 2, 4)
RANK_PAIRS = 32
STEPS, WARM_STEPS = 24, 3
COLLECTIVES = ("gather", "scatter", "reduce")
SIZES = (16_384, 262_144, 2_097_152)  # bytes of a rank
CALLS = 12
PHASES = ("forward", "loss", "backward", "average", "take")
MODEL = ClipConfig(
    embed_dim=128,
    vision=VitConfig(image_resolution=32, patch_size=8, width=96, layers=2, heads=3),
    text=TextConfig(context_length=16, vocab_size=1000, width=64, layers=2, heads=2),
)
NETWORKS = (400.0, 3200.0)  # Gbit/s of a node: two generations of rented machines
CORES = len(os.sched_getaffinity(0))


class Clock:
    """CPU and wall seconds between marks."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """Now."""
        self.marks.append((time.process_time(), time.perf_counter()))

    def spans(self) -> list[tuple[float, float]]:
        """CPU and wall seconds from each mark to the next."""
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(self.marks)]


def a_batch(rank: int) -> Batch:
    """Pictures and full texts of a fixed draw."""
    generator = torch.Generator().manual_seed(rank)
    length, side = MODEL.text.context_length, MODEL.vision.image_resolution
    tokens = torch.randint(1, 900, (RANK_PAIRS, length), generator=generator)
    tokens[:, -1] = 999  # EOT
    images = torch.randint(0, 256, (RANK_PAIRS, side, side, 3), generator=generator, dtype=torch.uint8)
    return Batch(images, tokens, np.arange(RANK_PAIRS), {})


def one_step(config: TrainConfig, state: train.State, batch: Batch, me: ranks.Ranks, tools: train.Tools) -> Clock:
    """One step as model/train.py makes it, with marks between its phases."""
    clock = Clock()
    clock.mark()
    train.seed_step(config.seed, state.batch, me.rank)
    tools.grads.zero()
    tools.statistics.keep()

    def encode(rows: slice) -> tuple[torch.Tensor, ...]:
        return objectives.encode(state.model, tools.normalise(batch.images, rows), batch.tokens[rows], config.text_groups)

    def loss(*encoded: torch.Tensor) -> torch.Tensor:
        clock.mark()
        value = objectives.loss(state.model, encoded, batch.tokens, config.loss)
        clock.mark()
        return value

    own = accumulate.backward(state.model, encode, loss, RANK_PAIRS, 0, me.device)
    clock.mark()
    ranks.mean(own, me)
    tools.grads.average(me)
    tools.grads.norm(me)
    clock.mark()
    train.take(config, state, learning_rate(state.step, config.num_steps, config.optimizer))
    clock.mark()
    return clock


def collective(kind: str, num_bytes: int, me: ranks.Ranks) -> Callable[[], object]:
    """A call of one collective; num_bytes: what each rank has."""
    mine = torch.zeros(num_bytes // FLOAT_BYTES)
    every = torch.zeros(me.world_size * len(mine))
    calls: dict[str, Callable[[], object]] = {
        "gather": lambda: dist.all_gather_single(every, mine),
        "scatter": lambda: dist.reduce_scatter_single(mine, every),
        "reduce": lambda: ranks.mean(mine, me),
    }
    return calls[kind]


def measured(rank: int) -> dict[str, torch.Tensor]:
    """What one rank saw: CPU and wall seconds of each phase of a step, and of each collective at each size."""
    device = torch.device("cpu")
    me = ranks.here(device)
    lanes = me.world_size
    config = TrainConfig(
        model=MODEL, data=DataConfig(num_lanes=lanes), num_workers=lanes, global_batch=RANK_PAIRS * lanes, num_samples=10**6
    )
    state = start(config, MODEL, None, me)
    tools, batch = train.Tools(state, device, None), a_batch(rank)
    clocks = [one_step(config, state, batch, me, tools) for _ in range(WARM_STEPS + STEPS)][WARM_STEPS:]
    spans = torch.tensor([clock.spans() for clock in clocks])  # [steps, phases, 2]
    seen = {phase: spans[:, number].mean(0) for number, phase in enumerate(PHASES)}
    weights = sum(parameter.numel() for parameter in state.model.parameters())
    sizes = {"gather": feature_bytes(), "scatter": feature_bytes(), "reduce": weights * FLOAT_BYTES}
    for kind in COLLECTIVES if me.world_size > 1 else ():
        for size in (sizes[kind], *SIZES):
            call = collective(kind, size, me)
            call()
            dist.barrier()
            clock = Clock()
            clock.mark()
            for _ in range(CALLS):
                call()
            clock.mark()
            seen[f"{kind}-{size}"] = torch.tensor(clock.spans()[0]) / CALLS
    seen["weights"] = torch.tensor(float(weights))
    return seen


def feature_bytes() -> int:
    """Of one tower's features on one rank."""
    return RANK_PAIRS * MODEL.embed_dim * FLOAT_BYTES


class Seen(NamedTuple):
    """One number of ranks: means over the ranks."""

    ranks: int
    cpu: dict[str, float]  # of phases and collectives
    wall_seconds: float  # of a step
    weights: float

    @property
    def total(self) -> float:
        """CPU seconds of a step on a rank."""
        return sum(self.cpu[phase] for phase in PHASES)

    @property
    def gathers(self) -> float:
        """CPU seconds of a step's gathers and scatters, timed by themselves."""
        if self.ranks == 1:
            return 0.0
        return GATHERED * sum(self.cpu[f"{kind}-{feature_bytes()}"] for kind in ("gather", "scatter"))

    @property
    def alone(self) -> float:
        """CPU seconds of a step but for its collectives."""
        return self.total - self.gathers - self.cpu["average"]


def run(num_ranks: int, folder: Path) -> Seen:
    """Measure with so many processes."""
    every = run_ranks(num_ranks, folder / str(num_ranks), measured)
    names = [name for name in every[0] if name != "weights"]
    cpu = {name: statistics.fmean(float(seen[name][0]) for seen in every) for name in names}
    wall = statistics.fmean(sum(float(seen[phase][1]) for phase in PHASES) for seen in every)
    return Seen(num_ranks, cpu, wall, float(every[0]["weights"]))


def fit(seen: list[Seen]) -> tuple[Work, Links]:
    """The model's numbers, from the numbers of ranks in FITTED."""
    known = [one for one in seen if one.ranks in FITTED]
    rings = {}
    for kind in COLLECTIVES:
        samples = []
        for one in known:
            for name, seconds in one.cpu.items():
                if name.startswith(f"{kind}-"):
                    size = float(name.rpartition("-")[2])
                    samples.append((one.ranks, size if kind == "reduce" else size * one.ranks, seconds))
        rings[kind] = fit_ring(samples, 2 if kind == "reduce" else 1)
    links = Links(**rings)
    take = statistics.fmean(one.cpu["take"] for one in known)
    towers = statistics.fmean(one.alone for one in known) - take
    flops = flops_per_pair(MODEL)
    assert flops is not None
    per_pair = towers / RANK_PAIRS
    return Work(per_pair, per_pair * training.logit_flops(MODEL.embed_dim) / (PASSES * flops), take), links


def predicted(work: Work, links: Links, one: Seen) -> Step:
    """A step's CPU seconds by the model."""
    return step(work, links, ranks=one.ranks, rank_pairs=RANK_PAIRS, embed_dim=MODEL.embed_dim, num_weights=one.weights)


def print_table(seen: list[Seen], work: Work, links: Links) -> None:
    """Measured beside predicted, in milliseconds of a rank and step."""
    head = ["ranks", "CPU", "model", "ratio", "alone", "model", "gather", "model", "gradients", "model", "wall", "model"]
    rows = []
    for one in seen:
        guess = predicted(work, links, one)
        pairs = [
            (one.alone, guess.compute + guess.loss + guess.fixed), (one.gathers, guess.gather),
            (one.cpu["average"], guess.gradients), (one.wall_seconds, guess.total * max(1.0, one.ranks / CORES)),
        ]  # fmt: skip
        cells = [f"{1000 * seconds:.2f}" for pair in pairs for seconds in pair]
        rows.append(
            [str(one.ranks), f"{1000 * one.total:.2f}", f"{1000 * guess.total:.2f}", f"{guess.total / one.total:.2f}", *cells]
        )
    print(tables.table(head, rows))


def main() -> None:
    """Measure, fit, predict."""
    with tempfile.TemporaryDirectory() as folder:
        seen = [run(num_ranks, Path(folder)) for num_ranks in RANKS]
    work, links = fit(seen)
    print(f"{seen[0].weights:,.0f} weights, {RANK_PAIRS} pairs a rank, {CORES} cores; ms of a rank and step; fitted to {FITTED}")
    print_table(seen, work, links)
    for kind, ring in links._asdict().items():
        print(
            f"{kind:<8} {1e6 * ring.seconds_per_message:7.0f} us a message, {1e9 * ring.seconds_per_byte:.2f} ns a byte, of CPU"
        )
    for gbit in NETWORKS:
        node = NodeConfig(price_per_hour=0.0, cores=192, gpus=8, network_gbit_per_second=gbit)
        config = TrainPlanConfig(node=node)
        plans = training.plan(config)
        print(f"\n{config.recipe} on GPUs by the same model, nothing of it measured here; {gbit:,.0f} Gbit/s between nodes")
        print(tables.train_table(plans))
    for line in tables.train_assumptions(config, plans):
        print(f"  * {line}")
    last = seen[-1]
    print(f"scaling ratio={predicted(work, links, last).total / last.total:.2f}")


if __name__ == "__main__":
    main()
