"""jobs/evaluate.py as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from model.checkpoint import load_folder, save_folder, save_model
from model.clip import CLIP
from model.config import ClipConfig, TextConfig, VitConfig
from model.tokenizer import Tokenizer
from tests.model.evaluation_set import COLORS, TEMPLATES, write_set

REPOSITORY = Path(__file__).parents[2]
WITHOUT_TORCH = """
import runpy, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        assert name != "torch", "a finished evaluation imports torch"
sys.meta_path.insert(0, NoTorch())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else []), "jobs/evaluate.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def save_small_model(folder: Path) -> None:
    prompts = [template.replace("{c}", name) for name in COLORS for template in TEMPLATES]
    tokenizer = Tokenizer.train(prompts, vocab_size=600, context_length=16)
    vision = VitConfig(image_resolution=16, patch_size=8, width=32, layers=1, heads=2)
    text = TextConfig(context_length=16, vocab_size=tokenizer.vocab_size + 2, width=32, layers=1, heads=2)
    config = ClipConfig(embed_dim=16, vision=vision, text=text)
    torch.manual_seed(0)
    save_model(str(folder), CLIP(config), tokenizer, config, {"step": 1})


def save_other_architecture(root: Path) -> None:
    """A model folder whose configuration tells of one layer more than its weights have; every hash is right."""
    contents, manifest = load_folder(str(root / "model"))
    told = json.loads(contents["config.json"])
    told["vision"]["layers"] += 1
    save_folder(str(root / "other"), {**contents, "config.json": json.dumps(told).encode()}, {"step": manifest["step"]})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    save_small_model(folder / "model")
    write_set(folder / "colors", classes=list(COLORS))
    return folder


def test_the_job_writes_a_result_and_the_second_time_only_reads_it(root: Path) -> None:
    arguments = ("mini", "--root", str(root), "--eval-set", str(root / "colors"))
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    summary = json.loads((root / "evaluation/colors.json").read_text())
    rows = pl.read_parquet(root / "evaluation/colors.parquet")
    assert rows["index"].to_list() == list(range(24))
    assert summary["top1"] == pytest.approx((rows["label"] == rows["predicted"]).mean())
    assert summary["top5"] == pytest.approx(
        sum(label in top5 for label, top5 in zip(rows["label"], rows["top5"], strict=True)) / 24
    )
    line = f"top1={summary['top1']:.2f} top5={summary['top5']:.2f} classes=6 chance=0.167"
    assert first.stdout.splitlines()[-1] == line
    assert all(name in first.stdout for name in COLORS)
    second = run(*arguments, code=WITHOUT_TORCH)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == ["evaluate         already done: colors, 24 pictures", line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--eval-set", "SET", "--tasks", "guess"), "expected some of zero_shot"),
        (("--eval-set", "SET", "--model", "nowhere.pt"), "nowhere.pt: there is no such file or folder"),
        (("--eval-set", "SET", "--model", "jobs/evaluate.py"), "expected safetensors or a PyTorch archive, found neither"),
        (("--eval-set", "SET", "--model", "OTHER"), "expected the tensors of this configuration, found missing"),
        (("--eval-set", "SET", "--tasks", "shift"), "expected --tasks shift:OTHER"),
        (("--eval-set", "SET", "--tasks", "overlap:nowhere"), "nowhere is not there: expected the keys"),
        (("--eval-set", "SET", "--tasks", "retrieval"), "expected a text for every picture, found none for 24"),
        (("--eval-set", "cifar100=SET"), "expected 100 classes, as the registry says of cifar100, found 6"),
        ((), "name its folder with --eval-set"),
        (("--eval-set", "nowhere"), "nowhere/classnames.txt is not there"),
        (("--eval-set", "SET", "--root", "nowhere"), "holds no finished model"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(root: Path, arguments: tuple[str, ...], message: str) -> None:
    save_other_architecture(root)
    places = {"SET": root / "colors", "cifar100=SET": f"cifar100={root / 'colors'}", "OTHER": root / "other"}
    given = [str(places.get(argument, argument)) for argument in arguments]
    done = run("mini", "--root", str(root), *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
