"""Pictures as served -> pictures as stored, with what identifies them: perceptual hash and colours.

in      bytes of unknown origin; every one of them may be hostile
out     a Picture (RGB JPEG, resized as img2dataset means it), or the reason why there is none
drops   not_an_image, bomb, too_small, aspect, decode: the first that applies; the first four need no pixel decoded
law     the same bytes and settings give the same result; a broken or truncated file is never a picture
cost    most JPEGs that are made smaller: by jpeg.py, which reads of them what the stored size takes; other JPEGs: by
        libjpeg-turbo, at the smallest of 1/8 to 4/8 that is not below the stored size, else in full; the rest: by Pillow
source  resize modes: img2dataset's `resize_mode`
letters H height, W width, in px; rgb arrays are uint8 [H, W, 3]

Formats are those that browsers show, known by their first bytes and never by a Content-Type: JPEG, PNG, GIF, WebP, BMP,
AVIF. Orientation by EXIF is applied, transparency laid on white, 16 bits scaled to 8, and the first frame of an
animation taken.
"""

import hashlib
import io
import struct
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from pipeline import fingerprints, jpeg, scaling
from pipeline.config import DownloadConfig
from pipeline.pictures import ASPECT, BOMB, DECODE, MEDIA_TYPES, NOT_AN_IMAGE, TOO_SMALL, Picture

ORIENTATION_TAG = 0x0112  # EXIF
TURNED = range(2, 9)  # orientations that change something
TRANSPOSED = range(5, 9)  # those that swap width and height
WHITE = (255, 255, 255)
HARMLESS = ("extraneous bytes", "subsampling")  # what libjpeg-turbo complains of though every pixel is there

PLAIN_MODES = ("keep_ratio", "keep_ratio_largest")  # nothing is cut or added
QUICK_EIGHTHS = (1, 2, 3, 4)  # at 5/8 to 7/8 libjpeg-turbo takes two to three times as long as in full
CV2_NO_MEMORY = -4  # cv2.Error.StsNoMem
STRIP_PIXELS = 1 << 22  # converted at a time

# What the decoders raise over broken files, found by mutating files of every format (test_images.py): Pillow's readers
# OSError, SyntaxError, ValueError, EOFError and struct.error, libavif RuntimeError, libjpeg-turbo ValueError.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error)
TOO_BIG = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class Look(NamedTuple):
    """A picture as it is stored, and what identifies it."""

    image: bytes
    width: int
    height: int
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


def orientation_in(exif: bytes) -> int:
    """`orientation_of` a picture with these EXIF data."""
    try:
        read = Image.Exif()
        read.load(exif)
        return read.get(ORIENTATION_TAG, 1)
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


def decode(data: bytes, image: Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, tuple[float, float]]:
    """The pixels, a JPEG's perhaps at some eighths that are not below `size`.  -> uint8 [H, W, 3], the picture's extent in it"""
    width, height = image.size
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return to_rgb(image), image.size
    quick = (n for n in QUICK_EIGHTHS if -(-width * n // 8) >= size[0] and -(-height * n // 8) >= size[1])
    eighths = next(quick, 8)
    least = {"min_width": -(-width * eighths // 8), "min_height": -(-height * eighths // 8)}
    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=True, **least), (width * eighths / 8, height * eighths / 8)
    except ValueError as error:
        if not any(words in str(error) for words in HARMLESS):
            raise
        return to_rgb(image), image.size


def resize(rgb: np.ndarray, extent: tuple[float, float], size: tuple[int, int], served: tuple[int, int]) -> np.ndarray:
    """A picture that was served with that width and height at `size`; extent: see scaling.fit.  [H, W, 3] -> [H, W, 3]"""
    if size[0] < served[0] or size[1] < served[1]:
        return scaling.fit(rgb, extent, size)
    return rgb if size == served else cv2.resize(rgb, size, interpolation=cv2.INTER_LANCZOS4)


def frame(rgb: np.ndarray, served: tuple[int, int], config: DownloadConfig) -> np.ndarray:
    """A picture at its stored_size, upright, cut or padded as the resize_mode says.  [H, W, 3] -> [H, W, 3]"""
    height, width, _ = rgb.shape
    side = config.image_size
    if (width, height) == served and config.resize_only_if_bigger:
        return rgb
    if config.resize_mode == "center_crop":
        left, top = (width - side) // 2, (height - side) // 2
        return rgb[top : top + side, left : left + side]
    if config.resize_mode == "border":
        left, top = (side - width) // 2, (side - height) // 2
        bottom, right = side - height - top, side - width - left
        return cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT, value=WHITE)
    return rgb


def look_of_rgb(rgb: np.ndarray, config: DownloadConfig) -> Look:
    """The picture of these pixels, as it is stored."""
    rgb = np.ascontiguousarray(rgb)
    return Look(
        image=simplejpeg.encode_jpeg(rgb, quality=config.encode_quality, colorspace="RGB", colorsubsampling="420"),
        width=rgb.shape[1],
        height=rgb.shape[0],
        phash=fingerprints.phash(rgb),
        colors=fingerprints.colors(rgb),
    )


def look_of_planes(planes: jpeg.Planes, config: DownloadConfig) -> Look:
    """The picture of these planes, which are as a JPEG with 4:2:0 keeps them, as it is stored."""
    y, cb, cr = planes
    height, width = y.shape
    # The encoder reads pixels two by two, also those that an odd picture does not have: they must be there, and the same ones.
    whole = cv2.copyMakeBorder(y, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE) if height % 2 or width % 2 else y
    image = simplejpeg.encode_jpeg_yuv_planes(whole[:height, :width], cb, cr, quality=config.encode_quality)
    phash, colors = fingerprints.of_planes(*planes)
    return Look(image, width, height, phash, colors)


def turn(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height as they are after, or before, `orient`."""
    return (size[1], size[0]) if orientation in TRANSPOSED else size


def look(data: bytes, image: Image.Image, orientation: int, config: DownloadConfig) -> Look:
    """The picture as it is stored."""
    served = turn(image.size, orientation)
    size = turn(scaling.stored_size(*served, config), orientation)
    rgb, extent = decode(data, image, size)
    rgb = orient(resize(rgb, extent, size, image.size), orientation)
    return look_of_rgb(frame(rgb, served, config), config)


def refuse(width: int, height: int, config: DownloadConfig) -> str | None:
    """The reason why a picture of that size is not wanted, or None."""
    if width * height > config.max_image_pixels:
        return BOMB
    if min(width, height) < config.min_image_size:
        return TOO_SMALL
    if max(width, height) > config.max_aspect_ratio * min(width, height):
        return ASPECT
    return None


def prepare_usual(data: bytes, config: DownloadConfig) -> Picture | str | None:
    """The picture of a JPEG that jpeg.py reads, made smaller, or the reason why there is none; None: it is for prepare_any."""
    header = jpeg.read_header(data)
    if not header:
        return None
    whole = (header.width, header.height)
    reason = refuse(*whole, config)
    if reason:
        return reason
    orientation = orientation_in(header.exif) if header.exif else 1
    served = turn(whole, orientation)
    size = scaling.stored_size(*served, config)
    planes = jpeg.planes(data, header, turn(size, orientation)) if max(size) < max(served) else None
    if planes is None:
        return None
    if orientation in TURNED or config.resize_mode not in PLAIN_MODES:
        stored = look_of_rgb(frame(orient(jpeg.rgb(planes), orientation), served, config), config)
    else:
        stored = look_of_planes(planes, config)
    return picture(data, "JPEG", served, stored)


def prepare_any(data: bytes, kind: str, config: DownloadConfig) -> Picture | str:
    """The picture in a file of a kind that Pillow knows, or the reason why there is none."""
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            reason = refuse(*image.size, config)
            if reason:
                return reason
            if kind != "JPEG":
                image.load()  # PNG may have its EXIF data after the pixels
            orientation = orientation_of(image)
            return picture(data, kind, turn(image.size, orientation), look(data, image, orientation, config))
    except TOO_BIG:
        return BOMB
    except BROKEN:
        return DECODE


def picture(data: bytes, kind: str, served: tuple[int, int], stored: Look) -> Picture:
    """All that is told of a picture that was served with that width and height."""
    return Picture(
        image=stored.image,
        width=stored.width,
        height=stored.height,
        original_width=served[0],
        original_height=served[1],
        original_bytes=len(data),
        media_type=MEDIA_TYPES[kind],
        sha256=hashlib.sha256(data).hexdigest(),
        phash=stored.phash,
        colors=stored.colors,
    )


def prepare(data: bytes, config: DownloadConfig) -> Picture | str:
    """The picture in `data` as it is stored, or the reason (one of pictures.DROPS) why there is none."""
    kind = sniff(data)
    if kind is None:
        return NOT_AN_IMAGE
    try:
        made = prepare_usual(data, config) if kind == "JPEG" else None
        return made or prepare_any(data, kind, config)
    except MemoryError:
        return BOMB
    except cv2.error as error:
        if error.code != CV2_NO_MEMORY:
            raise
        return BOMB
