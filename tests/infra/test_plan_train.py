"""The plan of a training run and the model of its step: by hand, and the laws that any such model keeps."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from infra.plan import training
from infra.plan.config import LinkConfig, NodeConfig, TrainPlanConfig
from infra.plan.step_time import Links, Ring, Work, fit_ring, step
from model.flops import flops_per_pair, num_weights
from model.recipes import MODELS
from pipeline.errors import InputError

NODE = NodeConfig(price_per_hour=30.0, cores=192, gpus=8, network_gbit_per_second=3200.0)


def config(**values: Any) -> TrainPlanConfig:
    return TrainPlanConfig(node=NODE, **values)


def test_a_step_by_hand() -> None:
    """4 ranks of 10 pairs, 5 wide, 100 weights; a message 1 s, a byte 0.01 s."""
    got = step(Work(2.0, 0.001, 7.0), Links.alike(Ring(1.0, 0.01)), ranks=4, rank_pairs=10, embed_dim=5, num_weights=100)
    assert got.compute == 20.0
    assert got.loss == pytest.approx(0.001 * 10 * 40)
    # Two tensors of 4 x 10 x 5 x 4 = 800 bytes, there and back: 3 messages and 600 bytes each.
    assert got.gather == pytest.approx(4 * (3 + 6.0))
    # An all-reduce of 400 bytes: 6 messages and 2 x 300 bytes; and one of nothing: 6 messages.
    assert got.gradients == pytest.approx(6 + 6.0 + 6)
    assert got.fixed == 7.0
    assert got.total == pytest.approx(20 + 0.4 + 36 + 18 + 7)


def test_what_overlaps_hides_behind_the_way_back_and_no_further() -> None:
    sizes = {"ranks": 4, "rank_pairs": 10, "embed_dim": 5, "num_weights": 100}
    plain, half, long = (
        step(Work(work, 0.0, 0.0), Links.alike(Ring(0.0, 0.01)), **sizes, overlap=overlap)
        for work, overlap in ((2.0, 0.0), (2.0, 0.5), (0.06, 1.0))
    )
    assert plain.gradients == pytest.approx(6.0)
    assert half.gradients == pytest.approx(3.0)
    assert long.gradients == pytest.approx(6.0 - 0.06 * 10 * 2 / 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_step_of_one_rank_sends_nothing_and_better_links_are_never_slower(seed: int) -> None:
    draw = np.random.default_rng(seed)
    work = Work(*draw.uniform(1e-6, 1e-3, 3).tolist())
    sizes = {"rank_pairs": float(draw.integers(1, 1000)), "embed_dim": 512, "num_weights": float(draw.integers(1, 10**8))}
    one = step(work, Links.alike(Ring(1.0, 1.0)), ranks=1, **sizes)
    assert (one.gather, one.gradients) == (0.0, 0.0)
    totals = [step(work, Links.alike(Ring(1e-5 * slower, 1e-10 * slower)), ranks=64, **sizes).total for slower in (1, 2, 10)]
    assert totals == sorted(totals)
    weak = [step(work, Links.alike(Ring(1e-5, 1e-10)), ranks=ranks, **sizes).total for ranks in (1, 2, 4, 8, 256)]
    assert all(before < after for before, after in pairwise(weak)), "at a fixed share of the batch more ranks only add"


@pytest.mark.parametrize("seed", range(10))
def test_a_ring_is_found_again_from_what_it_costs(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ring = Ring(float(draw.uniform(1e-6, 1e-3)), float(draw.uniform(1e-11, 1e-8)))
    sizes = [(n, float(size)) for n in (2, 4) for size in (1e3, 1e5, 1e7)]
    assert fit_ring([(n, size, ring.gather(n, size)) for n, size in sizes], 1) == pytest.approx(ring)
    assert fit_ring([(n, size, ring.reduce(n, size)) for n, size in sizes], 2) == pytest.approx(ring)
    falling = fit_ring([(n, size, 1e-3 / size) for n, size in sizes], 1)
    assert min(falling) >= 0
    with pytest.raises(ValueError, match="two ranks and more"):
        fit_ring([(1, 10.0, 1.0)], 1)


def test_a_run_by_hand() -> None:
    (plan,) = training.plan(config(num_gpus=(16,), pairs_per_second=1000.0, pairs=1e6, epochs=2, checkpoint_seconds=0.0))
    assert plan.nodes == 2
    assert plan.num_steps == int(2e6 // 32_768)
    assert plan.step.compute == pytest.approx(32_768 / 16 / 1000 * 1.05)
    assert plan.binds == "step"
    assert plan.pairs_per_second == pytest.approx(32_768 / plan.step.total)
    assert plan.hours == pytest.approx(plan.num_steps * plan.step.total / 3600)
    assert plan.cost == pytest.approx(plan.hours * 2 * 30)
    assert plan.read_bytes == plan.num_steps * 32_768 * 25_000


def test_compute_is_three_forward_passes_at_the_peaks_share() -> None:
    (plan,) = training.plan(config(num_gpus=(1,), mfu=0.5, peak_tflops=100.0))
    flops = flops_per_pair(MODELS["ViT-B/32"])
    assert flops is not None
    assert plan.step.compute == pytest.approx(3 * flops * 32_768 / 50e12)
    assert num_weights(MODELS["ViT-B/32"]) == 151_277_313
    assert num_weights(MODELS["RN50"]) == 102_007_137


def test_what_is_slowest_binds() -> None:
    fast = config(num_gpus=(8,), pairs_per_second=1e6)
    assert training.plan(fast)[0].binds == "loader"
    thin = replace(fast, node=replace(NODE, network_gbit_per_second=1.0))
    assert training.plan(thin)[0].binds == "network"
    assert training.plan(thin)[0].read_gbit_per_second == pytest.approx(1.0)


def test_a_node_left_costs_the_links_between_nodes() -> None:
    links = LinkConfig(inside_gbytes_per_second=300.0, between_gbytes_per_second=10.0)
    inside, outside = training.plan(config(num_gpus=(8, 16), links=links))
    assert outside.step.gradients > 20 * inside.step.gradients


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_gpus": (0,)}, "num_gpus must be at least 1"),
        ({"num_gpus": (7,)}, "must be a multiple of the GPUs, found 32,768 and 7"),
        ({"mfu": 1.5}, "mfu must be above 0 and at most 1"),
        ({"overlap": -0.1}, "overlap must be from 0 to 1"),
        ({"slowest_rank": 0.5}, "slowest_rank must be at least 1"),
        ({"recipe": "vit_b_64"}, "expected one of mini"),
        ({"epochs": 0}, "epochs must be above 0"),
    ],
)
def test_nonsense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        training.plan(config(**values))
