"""Pictures as served -> pictures as stored, with what identifies them: perceptual hash and colours.

in      bytes of unknown origin; every one of them may be hostile
out     a Picture (RGB JPEG, resized as img2dataset means it), or the reason why there is none
drops   not_an_image, bomb, too_small, aspect, decode: the first that applies; the first four need no pixel decoded
law     the same bytes and settings give the same result; a broken or truncated file is never a picture
cost    JPEG: decoded at the smallest of 1/8, 2/8, 3/8, 4/8 that is not below the stored size, else in full (libjpeg-turbo);
        everything else in full by Pillow. Three quarters of a photograph's time are the Huffman decoder's, at any size
source  phash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), DCT hash;
        resize modes: img2dataset's `resize_mode`
letters H height, W width, in px; rgb arrays are uint8 [H, W, 3]

Formats are those that browsers show, known by their first bytes and never by a Content-Type: JPEG, PNG, GIF, WebP, BMP,
AVIF. Orientation by EXIF is applied, transparency laid on white, 16 bits scaled to 8, and the first frame of an
animation taken.
"""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from pipeline.config import DownloadConfig

NOT_AN_IMAGE = "not_an_image"
BOMB = "bomb"
TOO_SMALL = "too_small"
ASPECT = "aspect"
DECODE = "decode"
DROPS = (NOT_AN_IMAGE, BOMB, TOO_SMALL, ASPECT, DECODE)

ORIENTATION_TAG = 0x0112  # EXIF
TRANSPOSED = (5, 6, 7, 8)  # orientations that swap width and height
WHITE = (255, 255, 255)
HARMLESS = ("extraneous bytes", "subsampling")  # what libjpeg-turbo complains of though every pixel is there

QUICK_EIGHTHS = (1, 2, 3, 4)  # at 5/8 to 7/8 libjpeg-turbo takes two to three times as long as in full
LINEAR_UP_TO = 2.01  # times the stored size
STRIP_PIXELS = 1 << 22  # converted at a time

HASH_GRID_PX = 32  # side of the gray picture that is transformed
HASH_TERMS = 8  # lowest frequencies kept, each way
FLAT = 2.0  # gray levels times 32: a coefficient so near to the median is noise of the encoder, not picture
COLOR_GRID = 4

# What the decoders raise over broken files, found by mutating files of every format (test_images.py): Pillow's readers
# OSError, SyntaxError, ValueError, EOFError and struct.error, libavif RuntimeError, libjpeg-turbo ValueError.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error)
TOO_BIG = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture as it is stored; the fields are schema.IMAGE_FIELDS, all but key."""

    image: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    original_bytes: int
    media_type: str
    sha256: str
    phash: int
    colors: bytes


def guard_pillow(max_image_pixels: int) -> None:
    """Hold Pillow to the limit too, for sizes that a header does not tell (a GIF's frames), and hush what it says of
    broken EXIF data. Process-wide."""
    Image.MAX_IMAGE_PIXELS = max_image_pixels
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def sniff(data: bytes) -> str | None:
    """Pillow's name of the format that the first bytes announce, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return None


def dct_basis(size: int, terms: int) -> np.ndarray:
    """The first rows of the orthonormal DCT-II matrix.  -> [terms, size] float64"""
    frequency, place = np.arange(terms)[:, None], np.arange(size)[None, :]
    basis = np.cos(np.pi * frequency * (2 * place + 1) / (2 * size)) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    return basis


def area_means(size: int, cells: int) -> np.ndarray:
    """The matrix that takes `size` pixels to the means of `cells` equal parts of them, cut where they must be.

    -> [cells, size] float64; a row adds up to 1
    """
    edges, pixels = np.arange(cells + 1)[:, None] * (size / cells), np.arange(size)[None, :]
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return covered.clip(0, 1) * (cells / size)


BASIS = dct_basis(HASH_GRID_PX, HASH_TERMS)
BITS = np.uint64(1) << np.arange(HASH_TERMS**2, dtype=np.uint64)


@lru_cache(maxsize=256)
def hash_terms(size: int) -> np.ndarray:
    """The matrix that takes `size` pixels to the lowest terms of the DCT of their HASH_GRID_PX means.  [terms, size] float32"""
    return (BASIS @ area_means(size, HASH_GRID_PX)).astype(np.float32)


@lru_cache(maxsize=256)
def color_means(size: int) -> np.ndarray:
    """The matrix that takes `size` pixels to COLOR_GRID means.  [COLOR_GRID, size] float32"""
    return area_means(size, COLOR_GRID).astype(np.float32)


def phash(rgb: np.ndarray) -> int:
    """64 bits that stay the same, or nearly, when the picture is resized or encoded again; colour plays no part.

    Bit 8 * i + j is 1 where coefficient (i, j) of the gray picture is clearly above the median of all but (0, 0); bit 0
    is always 0. A picture of one colour has hash 0.  rgb: uint8 [H, W, 3]
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = gray.shape
    terms = (hash_terms(height) @ gray @ hash_terms(width).T).ravel()
    middle = len(terms) // 2 - 1
    bits = terms > np.partition(terms[1:], middle)[middle] + FLAT
    bits[0] = False
    return int(BITS[bits].sum(dtype=np.uint64))


def colors(rgb: np.ndarray) -> bytes:
    """Mean RGB of each cell of a 4 x 4 grid, row by row: 48 bytes.  rgb: uint8 [H, W, 3]"""
    height, width, _ = rgb.shape
    rows = (color_means(height) @ rgb.reshape(height, width * 3).astype(np.float32)).reshape(COLOR_GRID, width, 3)
    return np.rint(color_means(width) @ rows).astype(np.uint8).tobytes()


def stored_size(width: int, height: int, config: DownloadConfig) -> tuple[int, int]:
    """Width and height after the resize and before crop or border, as img2dataset's resize_mode means it.

    keep_ratio and center_crop bring the shorter side to image_size, keep_ratio_largest and border the longer one; with
    resize_only_if_bigger a picture whose side is not above image_size stays as it is.
    """
    if config.resize_mode == "no":
        return width, height
    shorter = config.resize_mode in ("keep_ratio", "center_crop")
    side = min(width, height) if shorter else max(width, height)
    if config.resize_only_if_bigger and side <= config.image_size:
        return width, height
    scale = config.image_size / side
    return max(1, round(width * scale)), max(1, round(height * scale))


def method_for(rgb: np.ndarray, size: tuple[int, int], smaller: bool) -> int:
    """OpenCV's method to bring the pixels to `size`. smaller: than the picture was served; its pixels may come reduced.

    The areas of a nearly right size are what linear interpolation gives too, in a seventh of the time.
    """
    if not smaller:
        return cv2.INTER_LANCZOS4
    return (
        cv2.INTER_LINEAR if rgb.shape[1] <= LINEAR_UP_TO * size[0] and rgb.shape[0] <= LINEAR_UP_TO * size[1] else cv2.INTER_AREA
    )


def resize(rgb: np.ndarray, width: int, height: int, config: DownloadConfig) -> np.ndarray:
    """`rgb`, of a picture that was served with that width and height, as it is stored.  [H, W, 3] -> [H, W, 3]"""
    size = stored_size(width, height, config)
    if size == (width, height) and config.resize_only_if_bigger:
        return rgb
    if rgb.shape[1::-1] != size:
        rgb = cv2.resize(rgb, size, interpolation=method_for(rgb, size, smaller=size[0] < width or size[1] < height))
    side = config.image_size
    if config.resize_mode == "center_crop":
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        return rgb[top : top + side, left : left + side]
    if config.resize_mode == "border":
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        bottom, right = side - size[1] - top, side - size[0] - left
        return cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT, value=WHITE)
    return rgb


def orient(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """`rgb` turned as EXIF's orientation (1 to 8) says; other values change nothing."""
    if orientation in TRANSPOSED:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation; 1 where there is none or where the EXIF data is broken, which is no fault of the picture."""
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except BROKEN:
        return 1


def to_rgb(image: Image.Image) -> np.ndarray:
    """The first frame by Pillow, any mode.  -> uint8 [H, W, 3]"""
    image.load()
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):  # what conversion takes beside the picture and its RGB is small
        strip = image.crop((0, top, width, min(height, top + rows))) if height > rows else image
        rgb[top : top + rows] = strip_to_rgb(strip)
    return rgb


def strip_to_rgb(image: Image.Image) -> np.ndarray:
    """A loaded picture of any mode, transparency laid on white.  -> uint8 [H, W, 3]"""
    if image.mode.startswith("I"):  # 16-bit gray; Pillow's own conversion clips it at 255
        gray = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer)
    return np.asarray(image.convert("RGB"))


def decode(data: bytes, image: Image.Image, orientation: int, config: DownloadConfig) -> np.ndarray:
    """The pixels, turned upright; a JPEG may come smaller, though not below its stored size.  -> uint8 [H, W, 3]"""
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return orient(to_rgb(image), orientation)
    width, height = image.size[::-1] if orientation in TRANSPOSED else image.size
    need = stored_size(width, height, config)
    need = need[::-1] if orientation in TRANSPOSED else need
    size = image.size
    for eighths in QUICK_EIGHTHS:
        reduced = (-(-size[0] * eighths // 8), -(-size[1] * eighths // 8))
        if reduced[0] >= need[0] and reduced[1] >= need[1]:
            size = reduced
            break
    try:
        rgb = simplejpeg.decode_jpeg(data, "RGB", min_width=size[0], min_height=size[1], strict=True)
    except ValueError as error:
        if not any(words in str(error) for words in HARMLESS):
            raise
        rgb = to_rgb(image)
    return orient(rgb, orientation)


def refuse(width: int, height: int, config: DownloadConfig) -> str | None:
    """The reason why a picture of that size is not wanted, or None."""
    if width * height > config.max_image_pixels:
        return BOMB
    if min(width, height) < config.min_image_size:
        return TOO_SMALL
    if max(width, height) > config.max_aspect_ratio * min(width, height):
        return ASPECT
    return None


def prepare(data: bytes, config: DownloadConfig) -> Picture | str:
    """The picture in `data` as it is stored, or the reason (one of DROPS) why there is none."""
    kind = sniff(data)
    if kind is None:
        return NOT_AN_IMAGE
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            reason = refuse(*image.size, config)
            if reason:
                return reason
            media_type = Image.MIME[kind]
            if kind != "JPEG":
                image.load()  # PNG may have its EXIF data after the pixels
            orientation = orientation_of(image)
            width, height = image.size[::-1] if orientation in TRANSPOSED else image.size
            rgb = decode(data, image, orientation, config)
    except TOO_BIG:
        return BOMB
    except BROKEN:
        return DECODE
    rgb = np.ascontiguousarray(resize(rgb, width, height, config))
    return Picture(
        image=simplejpeg.encode_jpeg(rgb, quality=config.encode_quality, colorspace="RGB", colorsubsampling="420"),
        width=rgb.shape[1],
        height=rgb.shape[0],
        original_width=width,
        original_height=height,
        original_bytes=len(data),
        media_type=media_type,
        sha256=hashlib.sha256(data).hexdigest(),
        phash=phash(rgb),
        colors=colors(rgb),
    )
