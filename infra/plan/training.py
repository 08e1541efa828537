"""The plan of a training run: step time, hours, nodes, bytes and cost on each number of GPUs that is asked for.

law     operations are those of model/flops.py; the loss's are its two products of logits, forward and back, at the same rate
law     the steps are the recipe's batch over all pairs of all epochs; a number of GPUs that does not divide the batch is refused
law     what binds is the step, or the loader's cores, or the network that brings the shards
source  step_time.py; model/flops.py
"""

from dataclasses import dataclass
from math import ceil

from infra.plan.config import TrainPlanConfig
from infra.plan.step_time import Links, Ring, Step, Work, step
from model.config import TrainConfig
from model.flops import PASSES, flops_per_pair, num_weights
from model.recipes import RECIPES
from pipeline.errors import InputError

OPTIMISER_BYTES = 40.0  # of a weight that AdamW reads and writes a step: weight, gradient and two moments in float32
GPU_BYTES_PER_SECOND = 2.0e12  # of a GPU's memory
LOGIT_PASSES = 3  # products of the logits: forward, and two back


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPlan:
    """One number of GPUs."""

    gpus: int
    nodes: int
    step: Step
    num_steps: int
    pairs_per_second: float
    efficiency: float  # pairs per second and GPU, over those of one GPU without any other
    binds: str  # step, loader or network
    hours: float
    loader_cores_share: float  # of the nodes' cores that decoding takes; above 1 the loader binds
    read_gbit_per_second: float  # of each node, shards
    read_bytes: float  # of the whole run, nothing kept between epochs
    cost: float


def between(config: TrainPlanConfig) -> float:
    """GB/s from a node to the next."""
    return config.links.between_gbytes_per_second or config.node.network_gbit_per_second / 8


def links_of(config: TrainPlanConfig, gpus: int) -> Links:
    """The rings of so many GPUs."""
    links = config.links
    gbytes = links.inside_gbytes_per_second
    if gpus > links.gpus_per_node:
        gbytes = min(gbytes, between(config))
    return Links.alike(Ring(links.latency_seconds, 1 / (gbytes * 1e9)))


def recipe_of(config: TrainPlanConfig) -> TrainConfig:
    """The training recipe, checked."""
    if config.recipe not in RECIPES:
        raise InputError(f"plan: --recipe expected one of {', '.join(RECIPES)}, found {config.recipe!r}")
    return RECIPES[config.recipe]()


def flops_of(recipe: TrainConfig) -> float:
    """Forward operations of a pair."""
    flops = flops_per_pair(recipe.model)
    if flops is None:
        raise InputError("plan: operations are known for contrastive and sigmoid models only")
    return flops


def logit_flops(embed_dim: int) -> float:
    """Operations of one pair of logits, image to text and back, in the loss and its gradient."""
    return 2 * LOGIT_PASSES * 2.0 * embed_dim


def work(config: TrainPlanConfig, recipe: TrainConfig, weights: int) -> Work:
    """What one GPU does for a pair, a logit, a step."""
    flops_per_second = config.peak_tflops * 1e12 * config.mfu
    per_pair = 1 / config.pairs_per_second if config.pairs_per_second else PASSES * flops_of(recipe) / flops_per_second
    per_logit = logit_flops(recipe.model.embed_dim) / flops_per_second
    return Work(per_pair, per_logit, weights * OPTIMISER_BYTES / GPU_BYTES_PER_SECOND)


def plan(config: TrainPlanConfig) -> list[TrainPlan]:
    """A plan for each number of GPUs."""
    recipe = recipe_of(config)
    weights = num_weights(recipe.model)
    batch = config.global_batch or recipe.global_batch
    each = work(config, recipe, weights)
    return [_on(gpus, config, recipe, each, weights, batch) for gpus in config.num_gpus]


def _on(gpus: int, config: TrainPlanConfig, recipe: TrainConfig, each: Work, weights: int, batch: int) -> TrainPlan:
    if batch % gpus:
        raise InputError(f"plan: the batch must be a multiple of the GPUs, found {batch:,} and {gpus}")
    embed_dim = recipe.model.embed_dim
    one = step(each, links_of(config, 1), ranks=1, rank_pairs=batch / gpus, embed_dim=embed_dim, num_weights=weights)
    taken = step(
        each, links_of(config, gpus), ranks=gpus, rank_pairs=batch / gpus, embed_dim=embed_dim, num_weights=weights,
        overlap=config.overlap, slowest_rank=config.slowest_rank if gpus > 1 else 1.0,
    )  # fmt: skip
    node = config.node
    nodes = ceil(gpus / node.gpus)
    by_step = batch / taken.total
    by_loader = nodes * node.cores * config.decoded_pairs_per_core
    by_network = nodes * node.network_gbit_per_second * 1e9 / 8 / config.bytes_per_pair
    rates = {"step": by_step, "loader": by_loader, "network": by_network}
    binds = min(rates, key=lambda name: rates[name])
    rate = rates[binds]
    num_steps = int(config.pairs * config.epochs // batch)
    checkpoints = num_steps // recipe.checkpoint_every_steps
    hours = (num_steps * batch / rate + checkpoints * config.checkpoint_seconds) / 3600
    return TrainPlan(
        gpus=gpus, nodes=nodes, step=taken, num_steps=num_steps, pairs_per_second=rate, binds=binds,
        efficiency=rate / gpus / (batch / gpus / one.total), hours=hours, loader_cores_share=by_step / by_loader,
        read_gbit_per_second=rate * config.bytes_per_pair * 8 / 1e9 / nodes,
        read_bytes=num_steps * batch * config.bytes_per_pair, cost=hours * nodes * node.price_per_hour,
    )  # fmt: skip
