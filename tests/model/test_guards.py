"""Guards: what is seen, what is done, and that every rank and every continued run does the same."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model import checkpoint
from model.config import GuardConfig
from model.events import Event
from model.guards import Guards, Seen, Stopped, clock_verdicts
from model.objectives import Model
from model.train import train
from tests.model.ranks_helper import run_ranks
from tests.model.small import QUIET, small_run
from tests.model.test_train import CPU, REPOSITORY, weights

CONFIG = GuardConfig(history_steps=20, pinned_steps=3, max_answers=2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def seen(loss: float, *, norm: float = 1.0, scale: float | None = 14.3, step: int = 1) -> Seen:
    return Seen(step=step, batch=step, loss=loss, grad_norm=norm, lr=1e-3, logit_scale=scale, bad_ranks=(1, 3))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, -math.inf)])
def test_what_is_no_number_is_seen_in_one_line_and_skipped_until_that_does_not_help(loss: float, norm: float) -> None:
    guards = Guards()
    for _ in range(2):
        verdict = guards.judge(seen(loss, norm=norm), CONFIG)
        assert verdict is not None
        assert (verdict.guard, verdict.policy) == ("non_finite", "skip")
        assert "on ranks 1, 3" in verdict.text
        assert "lower --optimizer.learning-rate" in verdict.text
        assert "\n" not in verdict.text
    verdict = guards.judge(seen(loss, norm=norm), CONFIG)
    assert verdict is not None
    assert verdict.policy == "stop"
    assert guards.counts == {"non_finite": 3}
    assert guards.judge(seen(2.0), CONFIG) is None
    assert guards.skipped == 0


@pytest.mark.parametrize("number", range(10))
def test_a_spike_is_seen_and_noise_is_not(number: int) -> None:
    generator, guards = np.random.default_rng(number), Guards()
    for step in range(400):
        loss = 2 + 5 * math.exp(-step / 50) + 0.05 * generator.standard_normal()
        assert guards.judge(seen(loss, step=step), CONFIG) is None
    before = replace_counts(guards)
    verdict = guards.judge(seen(3.5), replace(CONFIG, loss_spike="skip"))
    assert verdict is not None
    assert (verdict.guard, verdict.policy) == ("loss_spike", "skip")
    assert replace_counts(guards) == replace(before, skipped=1)  # a loss that was not taken is not learnt from
    assert guards.judge(seen(3.5), replace(CONFIG, loss_spike="off")) is None


def replace_counts(guards: Guards) -> Guards:
    return replace(guards, counts={})


def test_a_pinned_scale_is_told_once_for_a_stretch_and_a_collapsed_one_too() -> None:
    guards = Guards()
    told = [guards.judge(seen(2.0, scale=scale), CONFIG) for scale in (100, 100, 100, 100, 99, 100, 100, 100, 0.9, 0.9)]
    assert [place for place, verdict in enumerate(told) if verdict] == [2, 7]
    guards = Guards()
    told = [guards.judge(seen(2.0, scale=0.5), CONFIG) for _ in range(3)]
    assert told[2] is not None
    assert "below 1" in told[2].text
    assert all(Guards().judge(seen(2.0, scale=None), CONFIG) is None for _ in range(5))


def test_what_is_remembered_comes_back_from_json_bit_for_bit() -> None:
    one, generator = Guards(), np.random.default_rng(5)
    losses = generator.random(200).tolist()
    for loss in losses[:100]:
        one.judge(seen(loss), CONFIG)
    other = Guards.from_json(json.loads(json.dumps(one.to_json())))
    assert other == one
    assert [one.judge(seen(loss), CONFIG) for loss in losses] == [other.judge(seen(loss), CONFIG) for loss in losses]
    assert other == one


def test_rewinds_to_one_checkpoint_end() -> None:
    memory = Guards()
    for _ in range(2):
        before, memory = memory, Guards()
        memory.back_to(40, before, CONFIG)
    before, memory = memory, Guards()
    memory.back_to(80, before, CONFIG)
    assert memory.rewinds == 1
    before, memory = memory, Guards()
    memory.back_to(80, before, CONFIG)
    with pytest.raises(Stopped, match="2 rewinds to the checkpoint of step 80 did not help"):
        Guards().back_to(80, memory, CONFIG)


def test_the_clock_tells_of_hunger_and_of_a_slow_rank() -> None:
    assert clock_verdicts(9, [[1.0, 5.0], [1.5, 6.0], [0.0, 5.5]], 10.0, CONFIG) == []
    starved, slow = clock_verdicts(9, [[1.0, 5.0], [4.0, 5.0], [1.0, 8.0]], 10.0, CONFIG)
    assert "rank 1 waited for data 40% of the time before step 9" in starved.text
    assert "--data.num-threads" in starved.text
    assert "rank 2 needs 1.6 times as long as the others" in slow.text
    assert clock_verdicts(9, [[1.0, 5.0], [4.0, 5.0], [1.0, 8.0]], 10.0, QUIET) == []


def poison(steps: dict[int, list[Any]], rank: int) -> object:
    """A hook that makes the features of a rank no numbers, or everybody's wrong, at given forward passes."""
    count = 0

    def hook(module: nn.Module, inputs: object, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        nonlocal count
        count += 1
        kind = steps.get(count, ["", 0])
        if kind[0] == "nan" and kind[1] == rank:
            return (output[0] * math.nan, *output[1:])
        if kind[0] == "swap":  # sure of the wrong texts: the loss is far above chance
            return (output[0] + 8 * torch.randn(output[0].shape, generator=torch.Generator().manual_seed(1)), *output[1:])
        return output

    return hook


def poisoned_run(rank: int, root: str, steps: dict[int, list[Any]], changes: dict[str, object]) -> list[Event]:
    """A run whose model misbehaves at some of its forward passes."""
    from model import objectives

    real, told = objectives.build, []

    def build(config: object) -> Model:
        model = real(config)  # type: ignore[arg-type]
        model.register_forward_hook(poison(steps, rank))  # type: ignore[arg-type]
        return model

    objectives.build = build  # type: ignore[assignment]
    try:
        train(small_run(Path(root), **changes), told.append, CPU)
    finally:
        objectives.build = real
    return told


def lines(root: Path) -> list[Event]:
    return [json.loads(line) for line in (root / "train" / "events.jsonl").read_text().splitlines()]


def facts(root: Path) -> Event:
    return json.loads((root / "model" / checkpoint.NAME).read_text())


def test_a_loss_that_is_no_number_is_passed_over_and_leaves_no_trace(tmp_path: Path) -> None:
    told = poisoned_run(0, str(tmp_path / "a"), {6: ["nan", 0]}, {})
    assert [event["step"] for event in told] == list(range(1, 13))
    assert facts(tmp_path / "a")["batches_passed_over"] == 1
    assert facts(tmp_path / "a")["guards"] == {"non_finite": 1}
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "a").values())
    (line,) = [line for line in lines(tmp_path / "a") if "guard" in line]
    assert (line["step"], line["guard"], line["policy"]) == (6, "non_finite", "skip")
    clean = poisoned_run(0, str(tmp_path / "b"), {}, {})
    assert [event["loss"] for event in told[:5]] == [event["loss"] for event in clean[:5]]
    assert told[5]["loss"] != clean[5]["loss"]  # the next batch took the place


SPIKE: dict[str, object] = {
    "guards": replace(QUIET, history_steps=4, loss_spike="rewind", spike_deviations=3.0),
    "num_samples": 16 * 20,
}


def test_a_spike_rewinds_to_the_checkpoint_and_passes_over_the_batches_since(tmp_path: Path) -> None:
    told = poisoned_run(0, str(tmp_path / "a"), {11: ["swap"]}, SPIKE)
    assert [event["step"] for event in told] == [*range(1, 11), *range(9, 21)]
    assert facts(tmp_path / "a")["batches_passed_over"] == 3  # 8, 9 and 10: those after the checkpoint of step 8
    assert facts(tmp_path / "a")["guards"] == {"loss_spike": 1}
    steps = [line["step"] for line in lines(tmp_path / "a") if "loss" in line]
    assert steps == list(range(1, 21))
    (line,) = [line for line in lines(tmp_path / "a") if "guard" in line]
    assert "back to step 8, on with batch 11" in line["text"]


def test_rewinds_without_a_checkpoint_end() -> None:
    verdict = Guards().judge(seen(math.nan), replace(CONFIG, non_finite="rewind"))
    assert verdict is not None
    guards = Guards()
    for _ in range(CONFIG.max_answers):
        guards.skip_instead(verdict, CONFIG)
    with pytest.raises(Stopped, match="2 batches in a row were skipped"):
        guards.skip_instead(verdict, CONFIG)


def test_a_loss_that_is_no_number_before_the_first_checkpoint_ends_the_run(tmp_path: Path) -> None:
    changes: dict[str, object] = {"guards": replace(QUIET, non_finite="rewind", max_answers=2)}
    with pytest.raises(Stopped, match="batches in a row were skipped"):
        poisoned_run(0, str(tmp_path), {batch: ["nan", 0] for batch in range(1, 12)}, changes)


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from tests.model import test_guards as t
real = t.small_run
class List(list):
    def append(self, event):
        if event["step"] == int(sys.argv[2]) and any(e["step"] == event["step"] for e in self):
            os.kill(os.getpid(), signal.SIGKILL)
        super().append(event)
t.torch.set_num_threads(1)
t.train = lambda config, report, device: __import__("model.train").train.train(config, told.append, device)
told = List()
t.poisoned_run(0, sys.argv[1], {11: ["swap"]}, t.SPIKE)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_after_a_rewind_ends_as_one_that_was_not(tmp_path: Path) -> None:
    poisoned_run(0, str(tmp_path / "whole"), {11: ["swap"]}, SPIKE)
    small_run(tmp_path / "killed")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), "10"], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    # Steps 9 and 10 were done again with other batches; the new process comes from step 8 to the same batch, its third pass.
    poisoned_run(0, str(tmp_path / "killed"), {3: ["swap"]}, SPIKE)
    wanted = weights(tmp_path / "whole")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(tmp_path / "killed").items())
    assert facts(tmp_path / "killed") == facts(tmp_path / "whole")


@pytest.mark.slow
def test_every_rank_acts_alike_when_one_has_no_number(tmp_path: Path) -> None:
    small_run(tmp_path / "a")
    changes: dict[str, object] = {"num_workers": 2}
    run_ranks(2, tmp_path / "ranks", poisoned_run, str(tmp_path / "a"), {6: ["nan", 1]}, changes)
    assert facts(tmp_path / "a")["guards"] == {"non_finite": 1}
    (line,) = [line for line in lines(tmp_path / "a") if "guard" in line]
    assert line["step"] == 6
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "a").values())


def test_a_run_that_can_not_be_helped_stops(tmp_path: Path) -> None:
    steps = {step: ["nan", 0] for step in range(6, 20)}
    with pytest.raises(
        Stopped, match=r"train: the loss is nan .* 5 batches in a row were skipped; the checkpoints before it are"
    ):
        poisoned_run(0, str(tmp_path), steps, {})
    assert not (tmp_path / "model").exists()
