"""The job that converts: a foreign file becomes the model that the other jobs read; a mistake is one line."""

import sys
from pathlib import Path

import pytest
import torch

from jobs import convert as job
from jobs._cli import entry
from model import checkpoint
from model.formats.config import RECIPES
from tests.model.formats.test_foreign import RESNET, VIT, tokenizer
from tests.model.peers import random_clip


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["convert.py", *words])
    try:
        entry(job.main, RECIPES, job.__doc__)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_state_dict_becomes_our_model_and_goes_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = random_clip(VIT, seed=0).state_dict()
    torch.save(tensors, tmp_path / "weights.pt")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer().to_bytes())
    words = ["--source", str(tmp_path / "weights.pt"), "--tokenizer", str(tmp_path / "tokenizer.json"), "--root", str(tmp_path)]
    assert run(monkeypatch, "wit", *words, "--activation", "quick_gelu") == 0
    assert f"-> {tmp_path}/model (wit)" in capsys.readouterr().out
    model, words_of_it, config = checkpoint.load_model(str(tmp_path / "model"))
    assert config == VIT
    assert words_of_it.to_bytes() == tokenizer().to_bytes()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    for kind in ("open_clip", "hugging_face"):
        assert run(monkeypatch, kind, "--root", str(tmp_path)) == 0
        back = ["--source", str(tmp_path / "export" / kind), "--root", str(tmp_path / kind)]
        assert run(monkeypatch, "wit", *back) == 0
        again, _, _ = checkpoint.load_model(str(tmp_path / kind / "model"))
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in again.state_dict().items())


def test_a_mistake_is_one_line_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(tmp_path)]
    cases = {
        "there is no such file or folder": ["open_clip", *root, "--source", str(tmp_path / "none.pt")],
        "is what is read and what is written": ["wit", *root],
        "holds other files (notes.txt)": ["open_clip", *root, "--target", str(tmp_path / "full")],
        "CLIPModel has no ResNet": ["hugging_face", *root],
        "holds no tokenizer; give --tokenizer": ["wit", *root, "--source", str(tmp_path / "bare.pt"), "--activation", "gelu"],
        "expected a tokenizer of 516 entries and 16 tokens": [
            "wit", *root, "--source", str(tmp_path / "bare.pt"), "--activation", "gelu", "--tokenizer", str(tmp_path / "77.json"),
        ],
    }  # fmt: skip
    checkpoint.save_model(str(tmp_path / "model"), random_clip(RESNET, 0), tokenizer(), RESNET, {"run": "x"})
    torch.save(random_clip(VIT, seed=0).state_dict(), tmp_path / "bare.pt")
    (tmp_path / "77.json").write_bytes(tokenizer().train(["abcd abce"] * 3, 516, 77).to_bytes())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("keep me")
    for reason, words in cases.items():
        if words[0] == "wit" and "--source" in words:
            words = [*words, "--target", str(tmp_path / "new")]
        assert run(monkeypatch, *words) == 2, reason
        told = capsys.readouterr().err
        assert reason in told
        assert len(told.strip().splitlines()) == 1
    assert (tmp_path / "full" / "notes.txt").read_text() == "keep me"
