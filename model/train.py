"""Train: shards in, a model out. A straight loop; the launcher (Ray Train, torchrun, nothing) only makes the process group.

What is trained, and its loss, is the objective's: see objectives.

in      root/6_shards
out     root/model, root/train/events.jsonl, root/train/checkpoints
law     a run that is killed at any step and started again ends with the weights of a run that was not, bit for bit on the
        CPU; this needs no saved generators: order, crops and every draw are functions of (seed, step, rank)
law     ranks see the shares of one global batch; their number changes nothing but the grouping of sums and BatchNorm
errors  Stopped where a guard ends the run; ValueError for a dataset or setting that can not be trained on
source  CLIP section 2.5
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model import accumulate, checkpoint, data, objectives, optimizer, ranks, runs, sharding
from model.config import TrainConfig
from model.events import Event, EventLog, say
from model.gradients import FlatGradients
from model.guards import REWIND, SKIP, STOP, Seen, Stopped, Verdict
from model.meter import Meter, mfu_per_rate, summary_line
from model.order import key
from model.pixels import Normalise
from model.ranks import Ranks
from model.saving import Saver
from model.shards import ShardStore, list_shards
from model.state import State, Statistics, restore, resume, snapshot, start, tokenizer_of
from model.tokenizer import Tokenizer
from model.trackers import Trackers

Report = Callable[[Event], None]
Notice = Callable[[], str | None]  # what a launcher has heard; asked after every step, the same answer on every rank
SAVE, END = "save", "end"  # a machine of the run is to go soon; the run itself is
RNG = 4  # what a draw is for; see model.order


Open = Callable[[int, int], Generator[data.Batch, None, None]]  # first batch, batches -> those, made ahead of use


@dataclass(frozen=True)
class Job:
    """What the loop needs beside the state."""

    config: TrainConfig
    run: str
    me: Ranks
    tokenizer: Tokenizer
    open: Open
    saver: Saver  # writes on rank 0 only
    log: EventLog | None  # on rank 0
    trackers: Trackers | None  # on rank 0
    report: Report
    notice: Notice
    mfu_per_rate: float | None

    def tell(self, event: Event) -> None:
        """An event, to the file and to people."""
        if self.log is not None:
            self.log.add(event)
            self.report(event)
        if self.trackers is not None:
            self.trackers.add(event)

    def tell_verdict(self, step: int, verdict: Verdict) -> None:
        """A guard's line; `step` is the one that is not done yet."""
        if self.log is not None:
            self.log.add({"step": step, **verdict._asdict()})
            say(f"{verdict.policy}: {verdict.text}")


class Tools:
    """What every step uses again."""

    def __init__(self, state: State, device: torch.device, mfu_per_rate: float | None):
        self.grads = FlatGradients(state.model, device)
        self.statistics = Statistics(state.model)
        self.normalise = Normalise()
        self.meter = Meter(state.step, device, mfu_per_rate)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make every draw of a step a function of the three."""
    torch.manual_seed(int(key(seed, RNG, step, rank)[0]))


def gradients(config: TrainConfig, state: State, batch: data.Batch, me: Ranks, tools: Tools) -> Tensor:
    """Forward and backward of one batch; each rank's own loss, its gradients added to those that are there."""
    tools.meter.work.start()
    images = batch.images.to(me.device, non_blocking=True)
    tokens = batch.tokens.to(me.device, non_blocking=True)

    def encode(rows: slice) -> tuple[Tensor, ...]:
        with torch.autocast(me.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return objectives.encode(state.model, tools.normalise(images, rows), tokens[rows], config.text_groups)

    def loss(*encoded: Tensor) -> Tensor:
        tools.meter.work.stop()  # from here on the ranks wait for each other
        return objectives.loss(state.model, encoded, tokens, config.loss)

    return accumulate.backward(state.model, encode, loss, len(images), config.micro_batch, me.device)


def work_out(job: Job, state: State, batch: data.Batch, tools: Tools) -> tuple[Seen, Verdict | None]:
    """Loss and gradient of a step's global batch, and what the guards say of them."""
    config, me = job.config, job.me
    seed_step(config.seed, state.batch, me.rank)
    tools.grads.zero()
    tools.statistics.keep()
    own = gradients(config, state, batch, me, tools)
    is_bad = not math.isfinite(float(own))
    loss = float(ranks.mean(own, me))
    tools.grads.average(me)
    bad_ranks = () if math.isfinite(loss) else tuple(r for r, (bad,) in enumerate(ranks.gather_numbers([is_bad], me)) if bad)
    seen = Seen(
        step=state.step + 1,
        batch=state.batch,
        loss=loss,
        grad_norm=tools.grads.norm(me),
        lr=optimizer.learning_rate(state.step, config.num_steps, config.optimizer),
        logit_scale=objectives.scalars(state.model).get("logit_scale"),
        bad_ranks=bad_ranks,
    )
    return seen, state.guards.judge(seen, config.guards)


def rewind(job: Job, state: State, verdict: Verdict) -> bool:
    """Go back to the newest good checkpoint and pass over all batches since then; False where there is none."""
    next_batch, before = state.batch + 1, state.guards
    if job.me.rank == 0:
        job.saver.flush()
    found = resume(job.config, job.run, job.me)
    if found is None:
        return False
    restore(state, found, job.me)
    state.guards.back_to(state.step, before, job.config.guards)
    state.batch = next_batch
    if job.log is not None:
        job.log.rewind(state.step)
    job.tell_verdict(
        state.step + 1, verdict._replace(text=f"{verdict.text}; back to step {state.step}, on with batch {next_batch}")
    )
    return True


def answer(job: Job, state: State, verdict: Verdict, statistics: Statistics) -> bool:
    """Do what a verdict asks for. -> whether the batch is passed over"""
    if verdict.policy == STOP:
        raise Stopped(f"train: {verdict.text}; the checkpoints before it are kept")
    if verdict.policy == REWIND and rewind(job, state, verdict):
        return True
    passed_over = verdict.policy in (SKIP, REWIND)  # without a checkpoint to go back to, a rewind skips
    if passed_over:
        if verdict.policy == REWIND:
            state.guards.skip_instead(verdict, job.config.guards)
        statistics.put_back()
        state.batch += 1
    job.tell_verdict(state.step + 1, verdict)
    return passed_over


def take(config: TrainConfig, state: State, lr: float) -> None:
    """The optimiser's step, with the gradients that are there."""
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    objectives.after_step(state.model)
    state.step += 1
    state.batch += 1


def save(job: Job, state: State, *, must: bool) -> None:
    """A checkpoint, whatever it costs where it `must` be; called on every rank."""
    text = replace(job.config.model.text, vocab_size=job.tokenizer.vocab_size)
    described = replace(job.config.model, text=text).to_json().encode()  # makes it a model that can be evaluated by itself
    contents = {**snapshot(job.run, state, job.tokenizer, job.me), "config.json": described}
    if job.me.rank == 0 and job.saver.has_room(state.step, must=must):
        job.saver.save(state.step, contents, {"run": job.run, "step": state.step})


def tell_step(job: Job, state: State, meter: Meter, seen: Seen) -> None:
    """The line of the step that was taken last, and what the clocks tell; called on every rank."""
    for verdict in meter.clocks(state.step, state.guards, job.config.guards, job.me):
        job.tell_verdict(state.step, verdict)
    values = {"loss": seen.loss, "grad_norm": seen.grad_norm, "lr": seen.lr}
    job.tell(meter.event(job.config, state, job.saver.lost_seconds, **values))


def answer_notice(job: Job, step: int, heard: str) -> None:
    """Wait until the step's checkpoint is written, and say so. SystemExit where the run is to end."""
    if job.me.rank == 0:
        job.saver.flush()
        say(f"the checkpoint of step {step} is written, because {'the run' if heard == END else 'a machine of the run'} is to go")
    ranks.total([0], job.me)  # nobody leaves before it is there
    if heard == END:
        raise SystemExit(f"train: told to end after step {step}; the same command goes on from there")


def loop(job: Job, state: State) -> None:
    """Every step from `state.step` to the last."""
    config, tools = job.config, Tools(state, job.me.device, job.mfu_per_rate)
    while state.step < config.num_steps:
        with closing(job.open(state.batch, config.num_steps - state.step)) as batches:
            for batch in tools.meter.timed(batches):
                job.saver.check()
                state.bad.update(batch.bad)
                seen, verdict = work_out(job, state, batch, tools)
                if verdict is not None and answer(job, state, verdict, tools.statistics):
                    break  # the batches that were made ahead are no longer those that come next, or one too few
                take(config, state, seen.lr)
                is_last = state.step == config.num_steps
                if state.step % config.log_every_steps == 0 or is_last:
                    tell_step(job, state, tools.meter, seen)
                heard = job.notice()
                if state.step % config.checkpoint_every_steps == 0 or is_last or heard:
                    save(job, state, must=is_last or heard is not None)
                if heard:
                    answer_notice(job, state.step, heard)


def train(config: TrainConfig, report: Report, device: torch.device, notice: Notice = lambda: None) -> None:
    """Train the run that `config` and its dataset name, from its newest good checkpoint if there is one.

    Called on every rank; `report` gets each event, on rank 0 only. `notice` says once that a machine (SAVE) or the run (END) is
    to go soon, which is answered with a checkpoint. Ranks that the lanes do not divide among have nothing to do: they return.
    """
    run = runs.run_name(config)
    me = ranks.here(device)
    size = ranks.usable(me.world_size, config.data.num_lanes)
    if size < me.world_size:
        if not ranks.keep_first(size, me):
            return
        me = ranks.here(device)
    folder = runs.shards_folder(config)
    shards = list_shards(folder)
    order = runs.data_order(config, shards)
    found = resume(config, run, me)
    tokenizer = tokenizer_of(config, shards, found, me)
    model_config = replace(config.model, text=replace(config.model.text, vocab_size=tokenizer.vocab_size))
    state = start(config, model_config, found, me)
    log = EventLog(runs.events_path(config), run, state.step) if me.rank == 0 else None
    trackers = Trackers(config, run, state.step) if me.rank == 0 else None
    rate = mfu_per_rate(model_config, config.precision, me)
    first, started = state.step, time.monotonic()
    max_open = 2 * config.data.window_shards * max(1, config.data.num_lanes // me.world_size)
    with (
        ShardStore(
            folder, shards, cache_dir=config.data.cache_dir, max_bytes=config.data.cache_bytes, max_open=max_open
        ) as store,
        Saver(runs.checkpoints_folder(config, run), keep=config.keep_checkpoints, budget=config.save_budget, say=say) as saver,
    ):
        maker = data.Batches(order, store, tokenizer, config.data, config.model.vision.image_resolution)

        def open_batches(batch: int, count: int) -> Generator[data.Batch, None, None]:
            return data.iterate(maker, batch, batch + count, me.rank, me.world_size, config.data)

        loop(Job(config, run, me, tokenizer, open_batches, saver, log, trackers, report, notice, rate), state)
    tensors = sharding.whole(state.model.state_dict())
    if log is None or trackers is None:
        return
    trackers.close()
    seconds = time.monotonic() - started
    summary = {"step": state.step, "seconds": seconds, **saver.summary(seconds), "guards": state.guards.counts}
    log.add(summary)
    log.flush()
    say(summary_line(state.step - first, summary))
    facts = {
        "run": run,
        "step": state.step,
        "samples_seen": state.step * config.global_batch,
        "batches_passed_over": state.batch - state.step,
        "bad": dict(state.bad),
        "guards": state.guards.counts,
    }
    checkpoint.save_tensors(runs.model_folder(config), tensors, tokenizer, model_config, facts)
