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

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from model import accumulate, checkpoint, compute, data, files, objectives, optimizer, ranks, resize, runs
from model.config import IMAGE_MEAN, IMAGE_STD, ClipConfig, TrainConfig
from model.events import Event, EventLog
from model.order import key
from model.ranks import FlatGradients, Ranks
from model.shards import Shard, ShardStore, iterate_texts, list_shards
from model.tokenizer import Tokenizer

Report = Callable[[Event], None]
RNG = 4  # what a draw is for; see model.order


class NonFinite(ArithmeticError):
    """The loss or a gradient is not a number: the run can not go on with these weights."""


@dataclass
class State:
    """All that a checkpoint holds beside the tokenizer: what resuming needs is here or is a function of `step`."""

    model: objectives.Model
    optimizer: torch.optim.Optimizer
    step: int = 0  # steps that are done
    bad: Counter[str] = field(default_factory=Counter)  # pairs that were replaced, by reason, on all ranks


class Meter:
    """Rates since the last line; the first line of a process and the time that checkpoints take are left out."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        """Measure from now on."""
        self.waited_seconds = 0.0
        self._step, self._start = step, time.monotonic()

    def event(self, config: TrainConfig, state: State, **values: float) -> Event:
        """The line of a step, and start again."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (state.step - self._step) / seconds
        event = {
            "step": state.step,
            "num_steps": config.num_steps,
            "samples_seen": state.step * config.global_batch,
            **objectives.scalars(state.model),
            **values,
            "pairs_per_second": rate * config.global_batch,
            "data_wait_share": self.waited_seconds / seconds,
            "eta_seconds": (config.num_steps - state.step) / max(rate, 1e-9),
        }
        self.restart(state.step)
        return event


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


def save(config: TrainConfig, run: str, state: State, tokenizer: Tokenizer, me: Ranks) -> None:
    """Write a checkpoint; called on every rank, because the running statistics are averaged."""
    ranks.average_buffers(state.model, me)
    bad = ranks.total([state.bad[reason] for reason in data.REASONS], me)
    state.bad = Counter(dict(zip(data.REASONS, bad, strict=True)) if me.rank == 0 else {})
    if me.rank:
        return
    folder = runs.checkpoints_folder(config, run)
    facts = {"run": run, "step": state.step, "bad": dict(state.bad)}
    contents = {
        "model.safetensors": checkpoint.pack(state.model.state_dict()),
        "optimizer.safetensors": checkpoint.pack(optimizer.state_tensors(state.optimizer, state.model)),
        "tokenizer.json": tokenizer.to_bytes(),
        "state.json": json.dumps(facts).encode(),
    }
    checkpoint.save_folder(checkpoint.step_folder(folder, state.step), contents, {"run": run, "step": state.step})
    checkpoint.prune(folder, config.keep_checkpoints)


def resume(config: TrainConfig, run: str, me: Ranks) -> dict[str, bytes] | None:
    """The files of the newest good checkpoint, the same one on every rank; None where the run starts."""
    folder = runs.checkpoints_folder(config, run)
    found = None
    if me.rank == 0:
        found = checkpoint.load_newest(folder, lambda text: print(f"train  {text}", flush=True))
    step = int(ranks.broadcast_bytes(str(found[1] if found else -1).encode(), me))
    if step < 0:
        return None
    return found[0] if found else checkpoint.load_folder(checkpoint.step_folder(folder, step))[0]


def start(config: TrainConfig, model_config: ClipConfig, found: dict[str, bytes] | None, me: Ranks) -> State:
    """The state to train from: drawn from the seed, or as the checkpoint left it."""
    torch.manual_seed(config.seed)
    model = objectives.build(model_config)
    compute.use(model, config.compute)
    model.to(me.device).train()
    if found is None and config.start_from:
        resize.start_from(model, model_config, config.start_from)
    optimizer.store_weights(model, config.optimizer)
    state = State(model, optimizer.make(model, config.optimizer, config.seed))
    if found is not None:
        facts = json.loads(found["state.json"])
        checkpoint.load_weights(model, checkpoint.unpack(found["model.safetensors"], "model.safetensors"), "checkpoint")
        moments = checkpoint.unpack(found["optimizer.safetensors"], "optimizer.safetensors")
        optimizer.load_state_tensors(state.optimizer, model, moments)
        state.step = facts["step"]
        state.bad = Counter(facts["bad"] if me.rank == 0 else {})
    return state


def tokenizer_of(config: TrainConfig, shards: tuple[Shard, ...], found: dict[str, bytes] | None, me: Ranks) -> Tokenizer:
    """The checkpoint's tokenizer, the one that the settings name, or one learnt from the dataset's texts."""
    data_bytes = found["tokenizer.json"] if found else b""
    if found is None and config.start_from:
        data_bytes = checkpoint.load_any(config.start_from)[1].to_bytes()
    elif found is None and me.rank == 0:
        text = config.model.text
        if config.data.vocabulary:
            data_bytes = Tokenizer.from_vocabulary(files.read(config.data.vocabulary), text.context_length).to_bytes()
        else:
            texts = iterate_texts(runs.shards_folder(config), shards, config.data.tokenizer_texts)
            data_bytes = Tokenizer.train(texts, text.vocab_size, text.context_length).to_bytes()
    return Tokenizer.from_bytes(ranks.broadcast_bytes(data_bytes, me))


def loop(
    config: TrainConfig, run: str, state: State, tokenizer: Tokenizer, batches: Iterator[data.Batch], me: Ranks, tell: Report
) -> None:
    """Every step from `state.step` to the last."""
    grads = FlatGradients(state.model, me.device)
    meter = Meter(state.step)
    while state.step < config.num_steps:
        before = time.monotonic()
        batch = next(batches)
        meter.waited_seconds += time.monotonic() - before
        state.bad.update(batch.bad)
        loss, norm, lr = update(config, state, grads, batch, me)
        if state.step % config.log_every_steps == 0 or state.step == config.num_steps:
            tell(meter.event(config, state, loss=loss, grad_norm=norm, lr=lr))
        if state.step % config.checkpoint_every_steps == 0:
            save(config, run, state, tokenizer, me)
            meter.restart(state.step)
    ranks.average_buffers(state.model, me)


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
    max_open = 2 * config.data.window_shards * max(1, config.data.num_lanes // me.world_size)
    with ShardStore(
        folder, shards, cache_dir=config.data.cache_dir, max_bytes=config.data.cache_bytes, max_open=max_open
    ) as store:
        maker = data.Batches(order, store, tokenizer, config.data, config.model.vision.image_resolution)
        batches = data.iterate(maker, state.step, config.num_steps, me.rank, me.world_size, config.data)
        with closing(batches):
            if me.rank:
                loop(config, run, state, tokenizer, batches, me, lambda event: None)
                return
            log = EventLog(runs.events_path(config), run, state.step)

            def tell(event: Event) -> None:
                log.add(event)
                report(event)

            loop(config, run, state, tokenizer, batches, me, tell)
            log.flush()
    facts = {"run": run, "step": state.step, "samples_seen": state.step * config.global_batch, "bad": dict(state.bad)}
    checkpoint.save_model(runs.model_folder(config), state.model, tokenizer, model_config, facts)
