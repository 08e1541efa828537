"""Archives of strangers: weights are read, nothing is run, what is hostile or damaged is refused in one message."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.clip import CLIP
from model.formats import foreign
from model.formats.archive import Archive
from model.formats.errors import BadModel
from tests.model.peers import random_clip, small_vit


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def archive(path: Path, content: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> str:
    """A zip as torch.save writes it, with this pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in (records or {}).items():
            file.writestr(f"archive/{name}", data)
    return str(path)


def test_every_kind_of_tensor_is_read_as_pytorch_reads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    saved = {
        "plain": base, "transposed": base.T, "a row of a larger one": base[2, 1:5], "strided": base[::2, ::3],
        "half": base.half(), "bfloat16": base.bfloat16(), "double": base.double(), "long": torch.arange(5), "flag": base > 0,
        "scalar": torch.tensor(3.5), "empty": torch.empty(0, 4), "parameter": torch.nn.Parameter(base),
        "nested": {"list": [1, 2.5, "text", None, True], "tuple": (1, (2, 3), -70000, 2**40)},
    }  # fmt: skip
    torch.save(saved, tmp_path / "file.pt")
    with Archive(str(tmp_path / "file.pt")) as file:
        assert not file.is_torchscript
        for name, tensor in saved.items():
            if isinstance(tensor, torch.Tensor):
                found = file.load(file.content[name])
                assert found.dtype == tensor.dtype
                assert torch.equal(found, tensor.detach()), name
        assert file.content["nested"] == saved["nested"]


def test_the_optimizer_of_a_training_checkpoint_is_read_past(tmp_path: Path) -> None:
    model = random_clip(small_vit(), seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    named = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"epoch": 3, "name": "run", "state_dict": named, "optimizer": optimizer.state_dict(), "scaler": None}
    torch.save(content, tmp_path / "epoch_3.pt")
    found = foreign.read(str(tmp_path / "epoch_3.pt"), "quick_gelu")
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_with_code_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    victim = tmp_path / "made by the attack"
    data = pickle.dumps({"visual.proj": Attack(victim)}, protocol)
    with pytest.raises(BadModel, match=r"expected weights only, found (the name|the instruction|a damaged)"):
        foreign.read(archive(tmp_path / "model.pt", data), "quick_gelu")
    (tmp_path / "bare.pt").write_bytes(data)
    with pytest.raises(BadModel, match="expected safetensors or a PyTorch archive, found neither"):
        foreign.read(str(tmp_path / "bare.pt"), "quick_gelu")
    assert not victim.exists()
    pickle.loads(data)  # the attack is one
    assert victim.exists()


def test_known_names_can_not_be_turned_into_calls(tmp_path: Path) -> None:
    reduced = b"\x80\x02ctorch\nFloatStorage\n(K\x01tR."  # a storage class, called
    with pytest.raises(BadModel, match=r"a call of torch\.FloatStorage"):
        foreign.read(archive(tmp_path / "1.pt", reduced), "gelu")
    stacked = b"\x80\x04\x8c\x02os\x8c\x06system\x93."
    with pytest.raises(BadModel, match=r"the name os\.system"):
        foreign.read(archive(tmp_path / "2.pt", stacked), "gelu")
    instance = b"\x80\x02(S'touch x'\nios\nsystem\n."
    with pytest.raises(BadModel, match=r"the instruction|damaged"):
        foreign.read(archive(tmp_path / "3.pt", instance), "gelu")


def one_tensor(shape: tuple[int, ...], stride: tuple[int, ...], size: int = 4, offset: int = 0) -> bytes:
    """A pickle of {"visual.proj": a tensor in record 0}."""
    numbers = lambda values: b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"  # noqa: E731
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ"
        + struct.pack("<i", size)
        + b"tQ"
    )
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"J" + struct.pack("<i", offset) + numbers(shape) + numbers(stride)
    return b"\x80\x02}X\x0b\x00\x00\x00visual.proj" + call + b"\x89ccollections\nOrderedDict\n)RtRs."


def test_the_hand_written_tensor_is_read_where_it_is_honest(tmp_path: Path) -> None:
    values = torch.arange(6.0)
    path = archive(tmp_path / "a.pt", one_tensor((2, 2), (2, 1), offset=1), {"data/0": values.numpy().tobytes()})
    with Archive(path) as file:
        assert torch.equal(file.load(file.content["visual.proj"]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (one_tensor((2, 2), (2, 1), offset=9), "does not fit into the 16 bytes of its record"),
        (one_tensor((4, 4), (4, 1)), "does not fit into the 16 bytes"),
        (one_tensor((2, -2), (2, 1)), "without a proper shape"),
        (one_tensor((2,), (2, 1)), "without a proper shape"),
        (one_tensor((4000, 4000), (0, 0)), "claim 64,000,000 bytes, more than the whole file"),
        (b"\x80\x02}.", "expected named tensors, found none"),
        (b"\x80\x02K\x05.", "expected named tensors, found none"),
        (b"\x80\x02", "no end|damaged instruction"),
        (b"", "no end|damaged instruction"),
        (b"\x80\x02h\x07.", "damaged instruction"),
        (b"\x80\x02ttt.", "no mark"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged instruction"),
    ],
)
def test_damaged_and_dishonest_pickles_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", content, {"data/0": bytes(16)})
    with pytest.raises(BadModel, match=reason):
        foreign.read(path, "gelu")


def test_endless_copies_of_one_container_are_refused(tmp_path: Path) -> None:
    build = b"\x80\x02](" + b"K\x01" * 100_000 + b"eq\x00"
    build += b"ctorch.jit._pickle\nbuild_intlist\nq\x01" + b"h\x01h\x00\x85R" * 200 + b"."
    with pytest.raises(BadModel, match="more than 10,000,000 copies"):
        foreign.read(archive(tmp_path / "a.pt", build), "gelu")


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    packed = archive(tmp_path / "1.pt", one_tensor((2, 2), (2, 1)), {"data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadModel, match="expected uncompressed tensors"):
        foreign.read(packed, "gelu")
    honest = Path(archive(tmp_path / "2.pt", one_tensor((2, 2), (2, 1)), {"data/0": bytes(16)})).read_bytes()
    start = honest.index(b"PK\x01\x02", honest.index(b"PK\x01\x02") + 1)  # the directory's entry of data/0
    lying = honest[: start + 20] + struct.pack("<II", 2_000_000_000, 2_000_000_000) + honest[start + 28 :]
    (tmp_path / "3.pt").write_bytes(lying)
    with pytest.raises(BadModel, match="more than the whole file has"):
        foreign.read(str(tmp_path / "3.pt"), "gelu")


def test_a_cut_or_flipped_archive_is_never_more_than_a_refusal(tmp_path: Path) -> None:
    torch.save(CLIP(small_vit()).state_dict(), tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    head = data.index(b"data.pkl")
    path = tmp_path / "b.pt"
    for position in [*range(head, head + 2000, 97), len(data) - 10, len(data) // 2]:
        for damaged in (data[:position], data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]):
            path.write_bytes(damaged)
            try:
                found = foreign.read(str(path), "quick_gelu")
            except BadModel:
                continue
            assert set(found.tensors) == set(CLIP(small_vit()).state_dict())


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 100) + b'{"a": {"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4]}}'.ljust(100),
        struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60),
        struct.pack("<Q", 2) + b"{",
    ],
)
def test_absurd_safetensors_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(BadModel, match=r"not a safetensors file|expected safetensors"):
        foreign.read(str(tmp_path / "a.safetensors"), "gelu")
