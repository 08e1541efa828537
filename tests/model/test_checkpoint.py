"""Folders that prove themselves: finished models and checkpoints."""

import json
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.checkpoint import NAME, TornFolder
from model.clip import CLIP
from model.tokenizer import Tokenizer
from tests.model.small import small_clip


def save_steps(folder: Path, *steps: int) -> None:
    for step in steps:
        target = checkpoint.step_folder(str(folder), step)
        checkpoint.save_folder(target, {"a.bin": bytes([step % 256]) * 100, "b.json": b"{}"}, {"step": step})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CLIP(small_clip()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tokenizer = Tokenizer.train(["a red square"], 560, 16)
    checkpoint.save_model(str(tmp_path), model, tokenizer, small_clip(), {"step": 7})
    again, its_tokenizer, config = checkpoint.load_model(str(tmp_path))
    assert config == small_clip()
    assert not again.training
    assert its_tokenizer.to_bytes() == tokenizer.to_bytes()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert json.loads((tmp_path / NAME).read_text())["step"] == 7


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_flipped_byte_in_a_model_is_noticed(name: str, tmp_path: Path) -> None:
    checkpoint.save_model(str(tmp_path), CLIP(small_clip()), Tokenizer.train(["a"], 560, 16), small_clip(), {})
    flip(tmp_path / name)
    with pytest.raises(TornFolder, match=rf"{name}: expected sha256 .* remove the folder"):
        checkpoint.load_model(str(tmp_path))


def test_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no finished model .*run jobs/train\.py first"):
        checkpoint.load_model(str(tmp_path))


def test_weights_of_another_model_are_told_by_name() -> None:
    model = CLIP(small_clip())
    tensors = dict(model.state_dict())
    tensors["surplus"] = tensors.pop("text_projection")
    tensors["ln_final.bias"] = torch.zeros(3)
    with pytest.raises(
        ValueError, match=r"missing: \['text_projection'\]; surplus: \['surplus'\]; .*ln_final.bias \[3\] instead of \[16\]"
    ):
        checkpoint.load_weights(model, tensors, "x")


def test_the_newest_checkpoint_that_proves_itself_is_taken(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert checkpoint.load_newest(str(tmp_path / "none"), warnings.append) is None
    save_steps(tmp_path, 100, 200, 300, 400)
    (tmp_path / "step-00000400" / NAME).unlink()  # killed before the manifest: it does not exist
    found = checkpoint.load_newest(str(tmp_path), warnings.append)
    assert found is not None
    assert found[1] == 300
    assert not warnings
    flip(tmp_path / "step-00000300" / "a.bin")
    (tmp_path / "step-00000200" / "b.json").unlink()
    found = checkpoint.load_newest(str(tmp_path), warnings.append)
    assert found is not None
    assert found[1] == 100
    assert len(warnings) == 2
    (tmp_path / "step-00000100" / NAME).write_text("{}")
    with pytest.raises(TornFolder, match="all 3 checkpoints are damaged"):
        checkpoint.load_newest(str(tmp_path), warnings.append)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save_steps(tmp_path, 5, 10, 15, 20)
    checkpoint.prune(str(tmp_path), 2)
    assert checkpoint.list_steps(str(tmp_path)) == [15, 20]
    checkpoint.prune(str(tmp_path), 5)
    assert checkpoint.list_steps(str(tmp_path)) == [15, 20]


def test_writing_a_checkpoint_again_never_leaves_an_old_manifest_over_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_steps(tmp_path, 5)
    folder = checkpoint.step_folder(str(tmp_path), 5)
    monkeypatch.setattr(checkpoint.files, "write", _fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save_folder(folder, {"a.bin": b"new"}, {})
    with pytest.raises(FileNotFoundError):
        checkpoint.load_folder(folder)


def _fail(path: str, data: bytes) -> None:
    raise OSError("disk full")
