"""The loop: it learns, it continues as if nothing had happened, ranks change nothing, its faults are told."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model import checkpoint, optimizer, runs
from model.clip import CLIP
from model.config import DataConfig, OptimizerConfig, TrainConfig
from model.events import Event, EventLog, bar, readable
from model.guards import Stopped
from model.recipes import MODELS, mini
from model.train import train
from tests.model.ranks_helper import run_ranks
from tests.model.small import QUIET, make_pairs, small_run, write_shards

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def weights(root: Path) -> dict[str, Tensor]:
    """The finished model's tensors."""
    return dict(checkpoint.load_model(str(root / "model"))[0].state_dict())


def events(root: Path) -> list[Event]:
    """The curve without what depends on the clock."""
    clocks = ("pairs_per_second", "data_wait_share", "checkpoint_share", "eta_seconds", "mfu", "memory_bytes")
    lines = [json.loads(line) for line in (root / "train" / "events.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in clocks} for line in lines if "loss" in line]


def run(root: Path, **changes: object) -> list[Event]:
    """Train to the end and return what was reported."""
    reported: list[Event] = []
    train(small_run(root, **changes), reported.append, CPU)
    return reported


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("undisturbed")
    run(root)
    return root


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import torch
from model import files
from model.train import train
from tests.model.small import small_run
torch.set_num_threads(1)
at, real, writes = int(sys.argv[3]), files.write, []
def die(now):
    if now:
        os.kill(os.getpid(), signal.SIGKILL)
def report(event):
    die(sys.argv[2] == "step" and event["step"] == at)
def write(path, content):
    writes.append(path)
    die(sys.argv[2] == "write" and len(writes) == at)
    real(path, content)
files.write = write
train(small_run(Path(sys.argv[1])), report, torch.device("cpu"))
"""


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


# The first write is the curve's; a checkpoint is four files and their manifest, the model three and theirs.
@pytest.mark.parametrize(
    ("kind", "at"),
    [("step", 7), ("write", 9), slow("step", 3), slow("step", 8), slow("write", 6), slow("write", 11), slow("write", 18)],
)
def test_a_run_that_is_killed_at_any_point_and_run_again_ends_with_the_same_bits(
    kind: str, at: int, tmp_path: Path, undisturbed: Path
) -> None:
    small_run(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED_RUN, str(tmp_path), kind, str(at)], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "model" / checkpoint.NAME).exists()
    steps = [event["step"] for event in run(tmp_path)]
    if kind == "step":
        assert steps[0] in range(1, at + 1, 4)  # the step after a checkpoint that was whole when the run was killed
    assert steps == list(range(13 - len(steps), 12 + 1))
    wanted = weights(undisturbed)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(tmp_path).items())
    assert events(tmp_path) == events(undisturbed)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        left = f"train/checkpoints/*/step-00000012/{name}"
        (own,), (other,) = tmp_path.glob(left), undisturbed.glob(left)
        assert own.read_bytes() == other.read_bytes()
    assert (tmp_path / "model" / checkpoint.NAME).read_text() == (undisturbed / "model" / checkpoint.NAME).read_text()


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    (folder,) = (tmp_path / "train" / "checkpoints").iterdir()
    (tmp_path / "model" / checkpoint.NAME).unlink()
    (folder / "step-00000012" / "optimizer.safetensors").write_bytes(b"torn")
    assert [event["step"] for event in run(tmp_path)] == [9, 10, 11, 12]
    assert "checkpoint of step 12 is damaged and passed over" in capsys.readouterr().out
    assert all(torch.equal(tensor, weights(undisturbed)[name]) for name, tensor in weights(tmp_path).items())


def test_it_learns_what_the_pictures_show(tmp_path: Path) -> None:
    reported = run(tmp_path, num_samples=16 * 80, checkpoint_every_steps=40)
    first, last = (sum(event["loss"] for event in reported[part]) / 10 for part in (slice(0, 10), slice(-10, None)))
    assert first > 2.6
    assert last < 1.7  # chance is ln 16 = 2.77
    model, tokenizer, config = checkpoint.load_model(str(tmp_path / "model"))
    assert config.text.vocab_size == tokenizer.vocab_size == model.token_embedding.num_embeddings


def rank_run(rank: int, root: str, changes: dict[str, object]) -> int:
    """One rank of a run: what a launcher's process does."""
    run(Path(root), **changes)
    return rank


@pytest.mark.slow
def test_two_ranks_see_the_same_batches_as_one_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    changes: dict[str, object] = {}
    small_run(tmp_path / "whole")
    small_run(tmp_path / "halves")
    run_ranks(2, tmp_path / "a", rank_run, str(tmp_path / "whole"), changes)
    run_ranks(2, tmp_path / "b", rank_run, str(tmp_path / "halves"), changes)
    (folder,) = (tmp_path / "halves" / "train" / "checkpoints").iterdir()
    (tmp_path / "halves" / "model" / checkpoint.NAME).unlink()
    (folder / "step-00000012" / checkpoint.NAME).unlink()  # as if killed while the last checkpoint was being written
    run_ranks(2, tmp_path / "c", rank_run, str(tmp_path / "halves"), changes)
    wanted = weights(tmp_path / "whole")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(tmp_path / "halves").items())
    assert events(tmp_path / "halves") == events(tmp_path / "whole")


def test_equal_settings_are_one_run_and_others_another(tmp_path: Path) -> None:
    config = small_run(tmp_path / "a")
    name = runs.run_name(config)
    assert runs.run_name(small_run(tmp_path / "b", num_workers=2, log_every_steps=5)) == name
    assert runs.run_name(replace(config, seed=1)) != name
    assert runs.run_name(replace(config, optimizer=OptimizerConfig(learning_rate=2e-2, num_warmup_steps=3))) != name
    pairs = make_pairs(100, seed=9)
    write_shards(tmp_path / "c" / "6_shards", [pairs])
    assert runs.run_name(small_run(tmp_path / "c")) != name
    assert runs.finished(config, name) is None


def test_a_finished_run_is_known_without_torch_or_ray(undisturbed: Path) -> None:
    script = """
import sys
from pathlib import Path
from model import runs
from tests.model.small import small_run
config = small_run(Path(sys.argv[1]))
assert runs.finished(config, runs.run_name(config))["step"] == 12
assert runs.finished(config, "clip-other") is None
assert not {"torch", "ray"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(undisturbed)], cwd=REPOSITORY, check=True)


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_do(tmp_path: Path) -> None:
    mad = OptimizerConfig(learning_rate=1e30, num_warmup_steps=1)
    with pytest.raises(Stopped, match=r"train: the loss is .* at step \d+, .*lower --optimizer\.learning-rate"):
        run(tmp_path, optimizer=mad, guards=replace(QUIET, non_finite="stop"))
    assert not (tmp_path / "model").exists()


def test_bad_pairs_are_in_the_finished_models_facts(tmp_path: Path) -> None:
    pairs = make_pairs(40, seed=3)
    pairs[7] = (b"broken", "a red square")
    write_shards(tmp_path / "6_shards", [pairs[:20], pairs[20:]])
    run(tmp_path)
    facts = json.loads((tmp_path / "model" / checkpoint.NAME).read_text())
    assert facts["bad"]["decode"] >= 4  # 12 steps of 16 are at least four epochs of 32 pairs; the bad one sits out at most a few
    assert facts["samples_seen"] == 16 * 12


def test_the_logit_scale_never_exceeds_a_hundred(tmp_path: Path) -> None:
    reported = run(tmp_path, optimizer=OptimizerConfig(learning_rate=0.5, num_warmup_steps=1))
    assert max(event["logit_scale"] for event in reported) <= 100.001


def test_weight_decay_leaves_out_gains_and_biases_only() -> None:
    with torch.device("meta"):
        models = [CLIP(MODELS["RN50"]), CLIP(MODELS["ViT-B/32"])]
    for model in models:
        norms = tuple(name for name, module in model.named_modules() if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)))
        for name, _ in model.named_parameters():
            free = name.endswith("bias") or name == "logit_scale" or name.rpartition(".")[0] in norms
            assert optimizer.is_decayed(name, model) != free, name
    assert optimizer.is_decayed("visual.class_embedding", models[1])
    assert optimizer.is_decayed("positional_embedding", models[0])


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = OptimizerConfig(learning_rate=2.0, num_warmup_steps=10)
    rates = [optimizer.learning_rate(step, 110, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[109] == pytest.approx(2 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_curve_that_continues_has_each_step_once(tmp_path: Path) -> None:
    path = str(tmp_path / "events.jsonl")
    log = EventLog(path, "a", 0)
    for step in range(1, 6):
        log.add({"step": step})
    with open(path, "a") as file:
        file.write('{"run": "a", "st')  # killed in the middle of a line
    EventLog(path, "a", 3).add({"step": 4, "again": True})
    steps = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert [(event["step"], event.get("again", False)) for event in steps] == [(1, False), (2, False), (3, False), (4, True)]
    EventLog(path, "b", 0)
    assert Path(path).read_text() == ""


def test_settings_that_do_not_fit_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_lanes must be a multiple of num_workers, found 4 and 3"):
        small_run(tmp_path, num_workers=3)
    with pytest.raises(ValueError, match="global_batch must be a multiple of num_lanes, found 18 and 4"):
        small_run(tmp_path, global_batch=18)
    with pytest.raises(ValueError, match="a batch needs 128 pairs and the dataset has 100"):
        runs.run_name(small_run(tmp_path, global_batch=128, num_samples=12_800))
    with pytest.raises(ValueError, match="crop_min_side must be above 0"):
        DataConfig(crop_min_side=0.0)


def test_the_recipes_are_concrete(tmp_path: Path) -> None:
    assert TrainConfig().num_steps == 390_625  # 32 epochs of 400 million pairs, table 18
    assert mini().num_workers == 2
    line = readable({"step": 10, "num_steps": 20, "loss": 1.0, "logit_scale": 14.3, "lr": 1e-3, "grad_norm": 2.0,
                     "pairs_per_second": 1234.0, "data_wait_share": 0.013, "eta_seconds": 75.0})  # fmt: skip
    assert "step     10/20" in line
    assert "left 1:15" in line
    assert os.linesep not in line


def test_a_terminal_has_a_bar() -> None:
    event = {"step": 10, "num_steps": 20, "loss": 1.0, "lr": 1e-3, "grad_norm": 2.0, "pairs_per_second": 1.0, "mfu": 0.31,
             "data_wait_share": 0.0, "eta_seconds": 5.0}  # fmt: skip
    assert bar(event, 10).startswith("\r\x1b[K[#####.....] step     10/20")
    assert "mfu 31%" in bar(event)
    assert bar({**event, "step": 20}, 10).endswith("\n")
