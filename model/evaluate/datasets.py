"""What an evaluation set is, whatever files it lies in: classes, prompts, and splits that are read unit by unit.

in      a folder or a name; layouts.py knows which files are which set
out     an EvalSet; its pictures one after another; pictures as CLIP's release prepares them
unit    a stretch of a split that is read by itself (a tar, some files of a folder, some rows of a table): the unit of work, of
        retry and of resume. Units of a split, and rows of a unit, have one order, which no number of workers changes
law     no picture is skipped: one that can not be read is a row that says why; what else is wrong is an error that names it
law     `pictures` of a split covers every byte of its pictures and labels, and not where they lie; `texts` covers classes and
        prompts: other prompts leave embeddings of pictures valid
errors  BadSet, a ValueError, says which file, what was expected and what was found
source  preprocessing: OpenAI CLIP, `_transform`
"""

import hashlib
import io
import struct
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

PLACEHOLDER = "{c}"
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
OTHER_FORMATS = {"bmp": "BMP", "ppm": "PPM", "pgm": "PPM", "gif": "GIF", "tif": "TIFF", "tiff": "TIFF"}  # of folders only
MAX_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB
Kind = Literal["classes", "multilabel", "captions"]


class BadSet(ValueError):
    """An evaluation set that is not what its layout promises."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows `start` to `stop` of a path; what that means is the layout's business."""

    layout: str
    path: str
    start: int = 0
    stop: int = 0  # 0: to the end
    names: tuple[tuple[str, int], ...] = ()  # of a folder: files and their labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The units of a split and the hash of all that is in them."""

    units: tuple[Unit, ...]
    pictures: str  # sha256

    @property
    def key(self) -> str:
        """sha256 of what is in the units and of where they are cut."""
        cuts = [(unit.layout, unit.start, unit.stop, len(unit.names)) for unit in self.units]
        return hashlib.sha256(repr((self.pictures, cuts)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """An evaluation set whose texts were read; its pictures are still on disk."""

    name: str
    kind: Kind = "classes"
    classnames: tuple[str, ...] = ()  # a class's place is its label; the first of its names
    names: tuple[tuple[str, ...], ...] = ()  # all names of each class
    templates: tuple[str, ...] = ()  # prompts, {c} stands for the class
    metric: str = "accuracy"  # the paper's for this set, of metrics.METRICS
    splits: dict[str, Split] = field(default_factory=dict)
    source: str = ""

    @property
    def texts(self) -> str:
        """sha256 of what the classifier is made from."""
        return hashlib.sha256(repr((self.names, self.templates)).encode()).hexdigest()

    @property
    def hash(self) -> str:
        """sha256 of everything that a score on the test split depends on."""
        return hashlib.sha256(f"{self.kind}/{self.metric}/{self.texts}/{self.split('test').pictures}".encode()).hexdigest()

    def split(self, name: str) -> Split:
        """A split by its name. Raises BadSet where the set has none of it."""
        if name not in self.splits:
            raise BadSet(f"{self.name}: expected a split {name!r}, found {', '.join(self.splits) or 'none'} in {self.source}")
        return self.splits[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A picture, encoded or as pixels, with what is known of it."""

    key: str
    picture: bytes | np.ndarray  # uint8 [h, w] or [h, w, 3] where it is pixels
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()


def check_prompts(where: str, names: tuple[tuple[str, ...], ...], templates: tuple[str, ...]) -> None:
    """Raise BadSet unless these classes and prompts make a classifier."""
    for template in templates:
        if PLACEHOLDER not in template:
            raise BadSet(f"{where}: a prompt template needs {PLACEHOLDER} where the class goes, found {template!r}")
    if len(names) < 2:
        raise BadSet(f"{where}: expected at least 2 classes, found {len(names)}")
    if not templates:
        raise BadSet(f"{where}: expected at least one prompt template, found none")


def decode(picture: bytes | np.ndarray) -> Image.Image | str:
    """The picture as RGB, or why it can not be read."""
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture).convert("RGB")
    try:
        with Image.open(io.BytesIO(picture), formats=sorted({*FORMATS.values(), *OTHER_FORMATS.values()})) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
            return image.convert("RGB")
    except UnidentifiedImageError:  # its text holds an address in memory, and rows are a function of the picture
        return f"expected a picture ({', '.join(sorted({*FORMATS, *OTHER_FORMATS}))}), found another file"
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, struct.error) as error:
        return f"expected a picture, found: {error}"


def preprocess(image: Image.Image, resolution: int) -> np.ndarray:
    """The shorter side to `resolution` (bicubic), then the square in the middle.  RGB -> uint8 [resolution, resolution, 3]"""
    width, height = image.size
    shorter = min(width, height)
    width, height = int(resolution * width / shorter), int(resolution * height / shorter)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + resolution, top + resolution)))
