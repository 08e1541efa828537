"""Pictures: a glyph in a colour on a background, drawn, encoded and measured.

in      a Drawing (concept, style, form) and the number of the attempt
out     Made: the bytes as they are served, their perceptual hash and their colours
law     a function of (seed, drawing, attempt): the same bytes every time; a copy differs from its original by at most
        COPY_DISTANCE bits of the hash and by COPY_COLOR in each cell of the colour grid
source  the hash is this package's own (32 x 32 gray, DCT, 8 x 8 lowest frequencies against their median): the pipeline's
        hash is another implementation, so that each is a check of the other
"""

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from infra.mini import glyphs
from infra.mini.chance import rng

COLORS = {
    "red": (214, 40, 40),
    "orange": (245, 130, 30),
    "yellow": (250, 218, 60),
    "green": (40, 150, 70),
    "blue": (40, 95, 210),
    "purple": (120, 60, 165),
    "pink": (242, 130, 185),
    "brown": (120, 75, 40),
    "black": (22, 22, 22),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "turquoise": (60, 195, 190),
    "navy": (20, 35, 95),
    "beige": (235, 220, 188),
}
NEUTRAL = ("black", "white", "gray")
MIN_CONTRAST = 160  # distance of the two colours in RGB
MIN_LUMA = 60  # and of their brightness
BOLD_LUMA = 120  # for pictures that are copied
FORMATS = ("jpg", "jpg", "jpg", "jpg", "jpg", "png", "png", "webp", "webp", "gif")
MEDIA = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}
FORM_FORMATS = {  # forms that fix the file format
    "exif": "jpg", "cmyk": "jpg", "progressive": "jpg", "gray": "jpg", "gray16": "png", "rgb16": "png",
    "transparent": "png", "palette": "png", "animated": "gif", "jpg": "jpg", "png": "png",
}  # fmt: skip
ORIENTATIONS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
FAST = Image.Quantize.FASTOCTREE
COPY_DISTANCE, COPY_COLOR = 1, 15
STORED_PX = 64  # shorter side at which the mini recipe keeps pictures
THRESHOLD = 2.0  # a term that is not clearly above the median gives a 0
WEAK = 8.0  # a term so near to the threshold may fall on the other side in a copy
MAX_WEAK = 3  # of a picture that is copied


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn; only position, size and finish are left to the attempt."""

    name: str
    concept: str
    glyph: glyphs.Glyph
    color: str
    background: str
    form: str  # "" or a key of FORM_FORMATS, or small, wide, steady (its hash bears copying)
    suffix: str  # file name ending; also the name of the format


@dataclass(frozen=True, slots=True)
class Made:
    """A drawn picture."""

    data: bytes
    phash: int
    num_weak: int  # bits of the hash that hang by little
    colors: np.ndarray  # int16 [48]
    good: bool = True  # False: draw again (a steady picture whose copies are not near enough)


def contrast(color: str, background: str, distance: float = MIN_CONTRAST, min_luma: float = MIN_LUMA) -> bool:
    """True where a glyph of one is easily seen on the other."""
    one, other = np.array(COLORS[color], float), np.array(COLORS[background], float)
    luma = abs((one - other) @ (0.299, 0.587, 0.114))
    return bool(np.linalg.norm(one - other) >= distance and luma >= min_luma)


PAIRS = tuple((one, other) for one in COLORS for other in COLORS if contrast(one, other))
BOLD_PAIRS = tuple(pair for pair in PAIRS if contrast(*pair, MIN_CONTRAST, BOLD_LUMA))
NEUTRAL_PAIRS = tuple(pair for pair in PAIRS if set(pair) <= set(NEUTRAL))


def drawing(seed: int, name: str, concept: str, form: str = "", families: tuple[str, ...] = glyphs.SERVED) -> Drawing:
    """Choose family, variant and colours of a picture by its name."""
    chance = rng(seed, "style", name)
    choices = [family for family in families if glyphs.glyphs(concept, family)]
    variants = glyphs.glyphs(concept, choices[chance.integers(len(choices))])
    pairs = {"gray": NEUTRAL_PAIRS, "gray16": NEUTRAL_PAIRS, "steady": BOLD_PAIRS}.get(form, PAIRS)
    color, background = pairs[chance.integers(len(pairs))]
    if form == "transparent":
        background = "white"
        color = [one for one, other in PAIRS if other == "white"][chance.integers(5)]
    glyph = variants[chance.integers(len(variants))]
    suffix = FORM_FORMATS.get(form) or FORMATS[chance.integers(len(FORMATS))]
    return Drawing(name, concept, glyph, color, background, form, suffix)


def canvas_size(chance: np.random.Generator, form: str) -> tuple[int, int]:
    """Width and height in px, mostly 64 to 128."""
    if form == "small":
        return int(chance.integers(12, 23)), int(chance.integers(14, 40))
    if form == "wide":
        side = int(chance.integers(26, 44))
        return (side * 5, side) if chance.random() < 0.5 else (side, side * 5)
    if form == "steady":
        return int(chance.integers(48, 55)), int(chance.integers(48, 55))  # so that a larger copy is stored as it is
    low, high = ((48, 64), (64, 129), (64, 129), (64, 129), (129, 181))[chance.integers(5)]
    width = int(chance.integers(low, high))
    ratio = 1.0 if chance.random() < 0.6 else chance.uniform(0.8, 1.25)
    return width, max(48, min(200, round(width * ratio)))


def shade(color: str, chance: np.random.Generator) -> np.ndarray:
    """The named colour, a little off."""
    return np.clip(np.array(COLORS[color]) + chance.integers(-12, 13, 3), 0, 255)


def glyph_mask(what: Drawing, width: int, height: int, chance: np.random.Generator) -> Image.Image:
    """Where the glyph lies on a canvas of that size: some place, size and tilt.  -> mode L"""
    drawn = glyphs.mask(what.glyph)
    scale = min(width / drawn.width, height / drawn.height) * chance.uniform(0.8 if what.form == "steady" else 0.5, 0.9)
    size = max(4, round(drawn.width * scale)), max(4, round(drawn.height * scale))
    small = drawn.resize(size, Image.Resampling.BILINEAR).rotate(chance.uniform(-15, 15), Image.Resampling.BILINEAR, expand=True)
    canvas = Image.new("L", (width, height))
    left, top = width - small.width, height - small.height
    canvas.paste(small, (round(left * chance.uniform(0.1, 0.9)), round(top * chance.uniform(0.1, 0.9))))
    return canvas


def render(what: Drawing, chance: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The picture in RGB and the coverage of its glyph."""
    width, height = canvas_size(chance, what.form)
    cover = glyph_mask(what, width, height, chance)
    color, background = shade(what.color, chance), shade(what.background, chance)
    if what.form in ("gray", "gray16"):
        color, background = np.repeat(color[:1], 3), np.repeat(background[:1], 3)
    image = Image.new("RGB", (width, height), tuple(background.tolist()))
    finish = 0.5 if what.form == "steady" else chance.random()
    if finish < 0.2:  # gradient
        column = np.linspace(background, background * chance.uniform(0.75, 0.95), height).astype(np.uint8)
        image = Image.fromarray(column[:, None, :]).resize((width, height), Image.Resampling.NEAREST)
    image.paste(tuple(color.tolist()), mask=cover)
    if 0.2 < finish < 0.3:
        frame = (0, 0, width - 1, height - 1)
        ImageDraw.Draw(image).rectangle(frame, outline=tuple(color.tolist()), width=int(chance.integers(2, 4)))
    elif finish > 0.9:  # noise
        noise = chance.integers(-6, 7, (height, width, 3), np.int16)
        image = Image.fromarray(np.clip(noise + np.asarray(image), 0, 255).astype(np.uint8))
    return image, cover


def png16(rgb: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write.  uint8 [H, W, C], C = 1 or 3"""
    height, width, channels = rgb.shape
    deep = (rgb.astype(np.uint16) * 257).astype(">u2").reshape(height, -1)
    rows = b"".join(b"\x00" + row.tobytes() for row in deep)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")


def save(image: Image.Image, suffix: str, **options: object) -> bytes:
    """The image's file, in memory."""
    buffer = io.BytesIO()
    image.save(buffer, format={"jpg": "JPEG"}.get(suffix, suffix.upper()), **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def encode(image: Image.Image, cover: Image.Image, what: Drawing, chance: np.random.Generator) -> bytes:
    """The picture's file in the drawing's form."""
    quality = int(chance.integers(82, 96))
    match what.form:
        case "exif":
            orientation = (3, 6, 8)[chance.integers(3)]
            exif = Image.Exif()
            exif[0x0112] = orientation
            return save(image.transpose(ORIENTATIONS[orientation]), "jpg", quality=quality, exif=exif)
        case "cmyk":
            return save(image.convert("CMYK"), "jpg", quality=quality)
        case "gray":
            return save(image.convert("L"), "jpg", quality=quality)
        case "progressive":
            return save(image, "jpg", quality=quality, progressive=True)
        case "gray16":
            return png16(np.asarray(image.convert("L"))[:, :, None])
        case "rgb16":
            return png16(np.asarray(image))
        case "palette":
            return save(image.quantize(32, FAST), "png")
        case "transparent":
            layer = Image.new("RGBA", image.size, (*shade(what.color, chance).tolist(), 255))
            layer.putalpha(cover)
            return save(layer, "png")
        case "animated":
            others = [ImageOps.invert(image).quantize(64, FAST)]
            return save(image.quantize(64, FAST), "gif", save_all=True, append_images=others, duration=200, loop=0)
    if what.suffix == "gif":
        return save(image.quantize(64, FAST), "gif")
    if what.suffix == "png":
        return save(image, "png", compress_level=2)
    return save(image, what.suffix, quality=quality, **({"method": 0} if what.suffix == "webp" else {}))


def upright(data: bytes) -> Image.Image:
    """The picture in `data` as a viewer shows it: turned, first frame, on white, RGB."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _basis() -> np.ndarray:
    frequency, place = np.mgrid[:8, :32]
    return np.cos(np.pi * frequency * (2 * place + 1) / 64) / np.where(frequency == 0, np.sqrt(32), 4)


BASIS = _basis()


def measure(image: Image.Image) -> tuple[int, int, np.ndarray]:
    """Perceptual hash (64 bits), how many of its bits hang by little, and the colours of a 4 x 4 grid (int16 [48])."""
    gray = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR), np.float64)
    terms = (BASIS @ gray @ BASIS.T).ravel()[1:]
    above = terms - np.median(terms) - THRESHOLD
    value = int.from_bytes(np.packbits(np.append(False, above > 0), bitorder="little").tobytes(), "little")
    cells = np.asarray(image.resize((4, 4), Image.Resampling.BOX), np.int16)
    return value, int((np.abs(above) < WEAK).sum()), cells.ravel()


def make(seed: int, what: Drawing, attempt: int) -> Made:
    """Draw, encode and measure; a steady picture is good only where its hash will bear being copied."""
    chance = rng(seed, "draw", what.name, attempt)
    image, cover = render(what, chance)
    made = Made(data := encode(image, cover, what, chance), *measure(upright(data)))
    if what.form == "steady":
        return replace(made, good=made.num_weak <= MAX_WEAK)
    return made


def stored(data: bytes) -> Image.Image:
    """The picture as a pipeline may keep it: a JPEG decoded at half its size where that is enough, then made small."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (STORED_PX, STORED_PX))
    small = image.convert("RGB")
    shorter = min(small.size)
    if shorter <= STORED_PX:
        return small
    width, height = (round(side * STORED_PX / shorter) for side in small.size)
    return small.resize((width, height), Image.Resampling.BILINEAR)


def near(one: Made, other: Made) -> bool:
    """True where one is a copy of the other, with room to spare, both as served and as a pipeline may keep them."""
    if one.data == other.data or int(np.abs(one.colors - other.colors).max()) > COPY_COLOR:
        return False
    hashes = [(made.phash, measure(stored(made.data))[0]) for made in (one, other)]
    return all((a ^ b).bit_count() <= COPY_DISTANCE for a, b in zip(*hashes, strict=True))


def copy(seed: int, name: str, original: bytes, how: str, attempt: int) -> Made:
    """The same picture encoded again (`recompress`) or in another size (`resize`)."""
    chance = rng(seed, "copy", name, attempt)
    image = upright(original)
    if how == "resize":
        largest = min(1.3, STORED_PX / min(image.size))
        scale = chance.uniform(0.72, 0.95) if chance.random() < 0.5 else chance.uniform(1.05, largest)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    data = save(image, "jpg", quality=int(chance.integers(78, 95)))
    return Made(data, *measure(upright(data)))


def sha256(data: bytes) -> str:
    """Hex digest of the bytes."""
    return hashlib.sha256(data).hexdigest()
