"""Guards: what goes wrong in a long run, seen when it happens, told in one line, answered by a policy.

non_finite   the loss or the gradient of the global batch is no number
loss_spike   the loss is far above its running mean
logit_scale  the factor of the cosines has been at its ceiling, or below 1, for many steps
starvation   the steps wait for data                    (by the clock: only told)
slow_rank    a rank needs much longer than the others   (by the clock: only told)

policy  warn: go on; skip: the batch is passed over, the step is done with the next one; rewind: back to the newest good
        checkpoint, all batches since then are passed over; stop: the run ends, its checkpoints are kept
law     a verdict is a function of values that all ranks share and of what the checkpoint holds: every rank acts alike, and a run
        that was killed comes to the same verdicts again
law     an answer that does not help ends: after `max_answers` skips in a row, or rewinds to one checkpoint, the run stops
source  passing over the batches before a spike: Chowdhery et al. 2022 (PaLM), section 5.1
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from model.config import MAX_LOGIT_SCALE, GuardConfig

NON_FINITE, LOSS_SPIKE, LOGIT_SCALE, STARVATION, SLOW_RANK = "non_finite", "loss_spike", "logit_scale", "starvation", "slow_rank"
SKIP, REWIND, STOP, WARN = "skip", "rewind", "stop", "warn"
SPIKE_FLOOR = 0.1  # of the mean: a smaller rise is no spike, however still the loss was
PINNED = 0.999  # of the ceiling


class Stopped(ArithmeticError):
    """A guard ended the run: it can not go on with these weights and settings."""


class Verdict(NamedTuple):
    """What a guard saw, and what is to be done now."""

    guard: str
    policy: str
    text: str


class Seen(NamedTuple):
    """The values of a step, the same on every rank."""

    step: int  # the step that is being done, from 1
    batch: int  # the batch's number in the order of the data, from 0
    loss: float
    grad_norm: float
    lr: float
    logit_scale: float | None
    bad_ranks: tuple[int, ...] = ()  # whose own loss is no number


@dataclass
class Guards:
    """What the guards remember; a checkpoint holds it."""

    mean: float = 0.0  # of the loss
    deviation: float = 0.0  # mean distance from it
    num_losses: int = 0
    pinned: int = 0  # steps in a row
    skipped: int = 0  # batches in a row
    rewound_to: int = -1
    rewinds: int = 0  # to that step
    counts: dict[str, int] = field(default_factory=dict)  # verdicts by guard

    def to_json(self) -> dict[str, Any]:
        """As JSON values, which keep every bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Guards":
        """What `to_json` gave."""
        return cls(**values)

    def judge(self, seen: Seen, config: GuardConfig) -> Verdict | None:
        """What is wrong with a step that is worked out and not yet taken; None: take it."""
        verdict = self._non_finite(seen, config) or self._spike(seen, config) or self._scale(seen, config)
        if verdict is None or verdict.policy == WARN:
            self.skipped = 0
            self._learn(seen.loss, config)
        elif verdict.policy == SKIP:
            self.skipped += 1
            if self.skipped > config.max_answers:
                verdict = verdict._replace(
                    policy=STOP, text=f"{verdict.text}; {config.max_answers} batches in a row were skipped"
                )
        if verdict is not None:
            self.count(verdict)
        return verdict

    def skip_instead(self, verdict: Verdict, config: GuardConfig) -> None:
        """A rewind that found no checkpoint is one more batch that is skipped. Raises Stopped where that does not help."""
        self.skipped += 1
        if self.skipped > config.max_answers:
            raise Stopped(
                f"train: {verdict.text}; {config.max_answers} batches in a row were skipped, and there is no checkpoint"
            )

    def count(self, verdict: Verdict) -> None:
        """One more."""
        self.counts[verdict.guard] = self.counts.get(verdict.guard, 0) + 1

    def back_to(self, step: int, before: "Guards", config: GuardConfig) -> None:
        """This is the memory of the checkpoint of `step`; go on from it after what `before` saw."""
        self.counts = before.counts
        self.rewinds = before.rewinds + 1 if before.rewound_to == step else 1
        self.rewound_to = step
        if self.rewinds > config.max_answers:
            raise Stopped(
                f"train: {config.max_answers} rewinds to the checkpoint of step {step} did not help; run again with a lower "
                "--optimizer.learning-rate, or look at the pairs of the batches that were passed over"
            )

    def _learn(self, loss: float, config: GuardConfig) -> None:
        weight = 1 / min(self.num_losses + 1, config.history_steps)
        self.deviation += weight * (abs(loss - self.mean) - self.deviation) if self.num_losses else 0.0
        self.mean += weight * (loss - self.mean)
        self.num_losses += 1

    def _non_finite(self, seen: Seen, config: GuardConfig) -> Verdict | None:
        if math.isfinite(seen.loss) and math.isfinite(seen.grad_norm):
            return None
        where = f"; on ranks {', '.join(map(str, seen.bad_ranks))}" if seen.bad_ranks else ""
        scale = f", logit_scale {seen.logit_scale:.3g}" if seen.logit_scale is not None else ""
        return Verdict(
            NON_FINITE,
            config.non_finite,
            f"the loss is {seen.loss} and the gradient's length {seen.grad_norm} at step {seen.step}, batch {seen.batch} "
            f"(learning rate {seen.lr:.3g}{scale}{where}): if it comes again, run with a lower --optimizer.learning-rate, or "
            "look at the pairs of this batch",
        )

    def _spike(self, seen: Seen, config: GuardConfig) -> Verdict | None:
        rise = max(config.spike_deviations * self.deviation, SPIKE_FLOOR * abs(self.mean))
        if config.loss_spike == "off" or self.num_losses < config.history_steps or seen.loss <= self.mean + rise:
            return None
        return Verdict(
            LOSS_SPIKE,
            config.loss_spike,
            f"the loss {seen.loss:.4g} at step {seen.step}, batch {seen.batch}, is far above its mean {self.mean:.4g} (usual "
            f"distance {self.deviation:.2g}): if it stays there, run with --guards.loss-spike rewind, a lower "
            "--optimizer.learning-rate or a lower --optimizer.beta2",
        )

    def _scale(self, seen: Seen, config: GuardConfig) -> Verdict | None:
        at_ceiling = seen.logit_scale is not None and seen.logit_scale >= PINNED * math.exp(MAX_LOGIT_SCALE)
        collapsed = seen.logit_scale is not None and seen.logit_scale < 1
        self.pinned = self.pinned + 1 if at_ceiling or collapsed else 0
        if config.logit_scale == "off" or self.pinned != config.pinned_steps:
            return None
        if collapsed:
            what = "below 1: the features do not tell the pairs apart; look at the texts, and lower --optimizer.learning-rate"
        else:
            what = (
                "at its ceiling of 100: usual late in a long run; early in it, lower --optimizer.learning-rate or take a larger "
                "--global-batch"
            )
        return Verdict(LOGIT_SCALE, config.logit_scale, f"logit_scale has been {what} ({self.pinned} steps, at step {seen.step})")


def clock_verdicts(step: int, clocks: list[list[float]], seconds: float, config: GuardConfig) -> list[Verdict]:
    """What the clock tells of the steps since the last line: seconds that each rank waited for data, and was at work itself."""
    verdicts, (waited, worked) = [], [list(column) for column in zip(*clocks, strict=True)]
    if max(waited) > config.starvation_share * seconds:
        text = (
            f"rank {waited.index(max(waited))} waited for data {max(waited) / seconds:.0%} of the time before step {step}: raise "
            "--data.num-threads and --data.prefetch-batches, or give each rank more cores"
        )
        verdicts.append(Verdict(STARVATION, WARN, text))
    usual = sorted(worked)[(len(worked) - 1) // 2]
    if max(worked) > config.slow_rank_factor * usual and max(worked) - usual > 0.01 * seconds:
        text = (
            f"rank {worked.index(max(worked))} needs {max(worked) / max(usual, 1e-9):.1f} times as long as the others before "
            f"step {step}: look for another load, heat or a broken link on its machine, or take it out"
        )
        verdicts.append(Verdict(SLOW_RANK, WARN, text))
    return verdicts
