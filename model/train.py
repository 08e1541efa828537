"""Train: shards in, a model out. A straight loop; the launcher (Ray Train, torchrun, nothing) only makes the process group.

What is trained, and its loss, is the objective's: see objectives.

in      root/6_shards
out     root/model, root/train/events.jsonl, root/train/checkpoints
law     a run that is killed at any step and started again ends with the weights of a run that was not, bit for bit on the
        CPU; this needs no saved generators: order, crops and every draw are functions of (seed, step, rank)
law     ranks see the shares of one global batch; their number changes nothing but the grouping of sums and BatchNorm
errors  NonFinite where the loss or a gradient is no number; ValueError for a dataset or setting that can not be trained on
source  CLIP section 2.5
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from model import accumulate, checkpoint, data, objectives, optimizer, ranks, runs
from model.config import IMAGE_MEAN, IMAGE_STD, TrainConfig
from model.events import Event, EventLog, say
from model.meter import Meter, summary_line
from model.order import key
from model.ranks import FlatGradients, Ranks
from model.saving import Saver
from model.shards import ShardStore, list_shards
from model.state import State, resume, snapshot, start, tokenizer_of
from model.tokenizer import Tokenizer

Report = Callable[[Event], None]
RNG = 4  # what a draw is for; see model.order


class NonFinite(ArithmeticError):
    """The loss or a gradient is not a number: the run can not go on with these weights."""


def normalise(images: Tensor) -> Tensor:
    """Pixels as the towers take them.  [B, R, R, 3] uint8 -> [B, 3, R, R] float32, channels last in memory"""
    mean, std = (torch.tensor(values, device=images.device) * 255 for values in (IMAGE_MEAN, IMAGE_STD))
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make every draw of a step a function of the three."""
    torch.manual_seed(int(key(seed, RNG, step, rank)[0]))


def gradients(config: TrainConfig, state: State, batch: data.Batch, me: Ranks) -> Tensor:
    """Forward and backward of one batch; each rank's own loss, its gradients added to those that are there."""
    images = batch.images.to(me.device, non_blocking=True)
    tokens = batch.tokens.to(me.device, non_blocking=True)

    def encode(rows: slice) -> tuple[Tensor, ...]:
        with torch.autocast(me.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return objectives.encode(state.model, normalise(images[rows]), tokens[rows], config.text_groups)

    def loss(*encoded: Tensor) -> Tensor:
        return objectives.loss(state.model, encoded, tokens, config.loss)

    return accumulate.backward(state.model, encode, loss, len(images), config.micro_batch, me.device)


def update(config: TrainConfig, state: State, grads: FlatGradients, batch: data.Batch, me: Ranks) -> tuple[float, float, float]:
    """One optimiser step.  -> loss of the global batch, length of its gradient, learning rate"""
    lr = optimizer.learning_rate(state.step, config.num_steps, config.optimizer)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    seed_step(config.seed, state.step, me.rank)
    grads.zero()
    loss = float(ranks.mean(gradients(config, state, batch, me), me))
    grads.average(me)
    norm = grads.norm()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        scales = "".join(f", {name} {value:.3g}" for name, value in objectives.scalars(state.model).items())
        raise NonFinite(
            f"train: the loss is {loss} and the gradient's length {norm} at step {state.step} (learning rate "
            f"{lr:.3g}{scales}); the checkpoints before it are kept: run again with a lower --optimizer.learning-rate, or look "
            "at the pairs of this step"
        )
    state.optimizer.step()
    objectives.after_step(state.model)
    state.step += 1
    return loss, norm, lr


def loop(
    config: TrainConfig,
    run: str,
    state: State,
    tokenizer: Tokenizer,
    batches: Iterator[data.Batch],
    me: Ranks,
    tell: Report,
    saver: Saver,
) -> None:
    """Every step from `state.step` to the last. Only rank 0 writes checkpoints."""
    grads = FlatGradients(state.model, me.device)
    meter = Meter(state.step)
    while state.step < config.num_steps:
        saver.check()
        before = time.monotonic()
        batch = next(batches)
        meter.waited_seconds += time.monotonic() - before
        state.bad.update(batch.bad)
        loss, norm, lr = update(config, state, grads, batch, me)
        is_last = state.step == config.num_steps
        if state.step % config.log_every_steps == 0 or is_last:
            tell(meter.event(config, state, saver.lost_seconds, loss=loss, grad_norm=norm, lr=lr))
        if state.step % config.checkpoint_every_steps == 0 or is_last:
            contents = snapshot(run, state, tokenizer, me)
            if me.rank == 0 and saver.has_room(state.step, is_last=is_last):
                saver.save(state.step, contents, {"run": run, "step": state.step})


def train(config: TrainConfig, report: Report, device: torch.device) -> None:
    """Train the run that `config` and its dataset name, from its newest good checkpoint if there is one.

    Called on every rank; `report` gets each event, on rank 0 only.
    """
    run = runs.run_name(config)
    me = ranks.here(device)
    folder = runs.shards_folder(config)
    shards = list_shards(folder)
    order = runs.data_order(config, shards)
    found = resume(config, run, me)
    tokenizer = tokenizer_of(config, shards, found, me)
    model_config = replace(config.model, text=replace(config.model.text, vocab_size=tokenizer.vocab_size))
    state = start(config, model_config, found, me)
    log = EventLog(runs.events_path(config), run, state.step) if me.rank == 0 else None

    def tell(event: Event) -> None:
        if log is not None:
            log.add(event)
            report(event)

    first, started = state.step, time.monotonic()
    max_open = 2 * config.data.window_shards * max(1, config.data.num_lanes // me.world_size)
    with (
        ShardStore(
            folder, shards, cache_dir=config.data.cache_dir, max_bytes=config.data.cache_bytes, max_open=max_open
        ) as store,
        Saver(runs.checkpoints_folder(config, run), keep=config.keep_checkpoints, budget=config.save_budget, say=say) as saver,
    ):
        maker = data.Batches(order, store, tokenizer, config.data, config.model.vision.image_resolution)
        batches = data.iterate(maker, state.step, config.num_steps, me.rank, me.world_size, config.data)
        with closing(batches):
            loop(config, run, state, tokenizer, batches, me, tell, saver)
    if log is None:
        return
    summary = {"step": state.step, "seconds": time.monotonic() - started, **saver.summary(time.monotonic() - started)}
    log.add(summary)
    log.flush()
    say(summary_line(state.step - first, summary))
    facts = {"run": run, "step": state.step, "samples_seen": state.step * config.global_batch, "bad": dict(state.bad)}
    checkpoint.save_model(runs.model_folder(config), state.model, tokenizer, model_config, facts)
