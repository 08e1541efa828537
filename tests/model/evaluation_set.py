"""A small evaluation set and a model that can be computed by hand, for the tests of model/evaluate and the report."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from model.evaluate.encoders import normalised

COLORS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (20, 40, 230),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "pink": (250, 120, 180),
}
TEMPLATES = ("a {c} square", "{c}", "the picture is {c}")


def encode(rgb: np.ndarray, ending: str) -> bytes:
    """The bytes of a picture, without loss."""
    sink = io.BytesIO()
    kind, options = {"png": ("PNG", {}), "webp": ("WEBP", {"lossless": True}), "jpg": ("JPEG", {"quality": 95})}[ending]
    Image.fromarray(rgb).save(sink, kind, **options)
    return sink.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """A tar of the members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_set(folder: Path, *, classes: list[str], num_pictures: int = 24, shards: int = 2, seed: int = 0) -> list[int]:
    """Noisy one-colour pictures in `shards` tars, every fifth with a wrong label; returns the labels in their order."""
    rng = np.random.default_rng(seed)
    members: list[list[tuple[str, bytes]]] = [[] for _ in range(shards)]
    order = []
    for number in range(num_pictures):
        color = number % len(COLORS)
        noise = rng.integers(-60, 60, (20 + number, 40, 3))
        rgb = np.clip(np.asarray(list(COLORS.values())[color]) + noise, 0, 255).astype(np.uint8)
        ending = ("png", "webp")[number % 2]
        label = classes.index(list(COLORS)[(color + (number % 5 == 4)) % len(COLORS)])
        shard = number * shards // num_pictures
        members[shard] += [(f"{number:03}.cls", str(label).encode()), (f"{number:03}.{ending}", encode(rgb, ending))]
        order.append(label)
    for shard, content in enumerate(members):
        write_tar(folder / "test" / f"{shard}.tar", content)
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")
    (folder / "classnames.txt").write_text("\n".join(classes) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return order


class ColorEncoder:
    """Pictures and texts as points: the mean colour, and a colour that the words spell with a shift of each prompt."""

    resolution = 8

    def facts(self) -> dict[str, Any]:
        """As encoders.Encoder."""
        return {"objective": "contrastive", "logit_scale": float(np.exp(3.0))}

    def images(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        """Mean of each channel and a constant.  uint8 [B, R, R, 3] -> [B, 4]"""
        images = normalised(pixels, torch.device("cpu"))
        return torch.cat([images.mean(dim=(2, 3)), torch.ones(len(images), 1)], dim=1).numpy(), None

    def texts(self, texts: list[str]) -> np.ndarray:
        """A function of the words alone.  -> [B, 4]"""
        return np.stack([text_features(text) for text in texts]).astype(np.float32)


def text_features(text: str) -> np.ndarray:
    """The normalised colour that the text names, moved by a number of the text's other letters.  -> [4] float64"""
    (name,) = [name for name in COLORS if name in text.lower().split()]
    color = (np.asarray(COLORS[name]) / 255 - (0.48, 0.46, 0.41)) / 0.27
    shift = np.asarray([len(text), text.count("e"), text.count("t")]) / 40
    return np.append(color * (1 + len(text)) + shift, 0.5)
