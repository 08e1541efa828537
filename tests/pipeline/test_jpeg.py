"""The reader of usual JPEGs: against samples that are known, libjpeg-turbo and Pillow, and thousands of broken files."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline import images, jpeg
from pipeline import jpeg_kernel as kernel
from pipeline.config import DownloadConfig
from pipeline.images import HARMLESS
from pipeline.pictures import Picture
from tests.conftest import REPOSITORY
from tests.pipeline.odd_files import encode, mutate, orientation, shapes

Size = tuple[int, int]


@pytest.fixture(autouse=True)
def guard() -> None:
    images.guard_pillow(DownloadConfig().max_image_pixels)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft shapes with grain, so that a block has many coefficients."""
    grain = np.random.default_rng(seed).standard_normal((height, width, 1)) * 6
    return Image.fromarray((np.asarray(shapes(width, height, seed)) + grain).clip(0, 255).astype(np.uint8))


def planes(data: bytes, size: Size) -> jpeg.Planes | None:
    header = jpeg.read_header(data)
    return jpeg.planes(data, header, size) if header else None


def psnr(left: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((left.astype(float) - right.astype(float)) ** 2))))


def samples(data: bytes) -> np.ndarray:
    """A gray JPEG by Pillow."""
    return np.asarray(Image.open(io.BytesIO(data))).astype(float)


def means(plane: np.ndarray, eighths: int) -> np.ndarray:
    """Of the parts of each 8 x 8 block of which `eighths` go into it, each way."""
    height, width = plane.shape
    cut = np.repeat(np.repeat(plane, eighths, 0), eighths, 1)  # each pixel in N x N pieces
    return cut.reshape(height * eighths // 8, 8, width * eighths // 8, 8).mean((1, 3))


def slow_blocks(rng: np.random.Generator, height: int, width: int, terms: int) -> np.ndarray:
    """A plane whose blocks have the first terms x terms frequencies only."""
    basis = np.cos(np.pi * np.arange(terms)[:, None] * (2 * np.arange(8) + 1) / 16)
    drawn = rng.uniform(-60, 60, (height // 8, width // 8, terms, terms)) / terms
    blocks = np.einsum("hwuv,uy,vx->hywx", drawn, basis, basis)
    return (blocks.reshape(height, width) + 128).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("eighths", range(1, 6))
@pytest.mark.parametrize("cut", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_samples_are_the_means_of_the_whole_picture(eighths: int, cut: Size) -> None:
    across, down = cut
    rng = np.random.default_rng(eighths)
    width, height = 8 * across * 23, 8 * down * 17
    y = slow_blocks(rng, height, width, eighths)
    cb, cr = (slow_blocks(rng, height // down, width // across, eighths) for _ in range(2))
    data = simplejpeg.encode_jpeg_yuv_planes(y, cb, cr, quality=100)
    header = jpeg.read_header(data)
    assert header
    assert [(one.across, one.down) for one in header.components] == [cut, (1, 1), (1, 1)]
    sizes = [(plane.shape[1] * eighths // 8, plane.shape[0] * eighths // 8) for plane in (y, cb, cr)]
    for plane, drawn in zip((y, cb, cr), jpeg.draw(data, header, sizes), strict=True):
        whole = samples(simplejpeg.encode_jpeg_yuv_planes(plane, None, None, quality=100))  # at 100 all tables are ones
        assert drawn.eighths == eighths
        assert np.abs(drawn.pixels() - means(whole, eighths)).max() < 1.5


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "4:4:4": lambda image: encode(image, "JPEG", quality=90, subsampling=0),
    "4:2:2": lambda image: encode(image, "JPEG", quality=90, subsampling=1),
    "4:2:0": lambda image: encode(image, "JPEG", quality=90, subsampling=2),
    "4:4:0": lambda image: simplejpeg.encode_jpeg(np.asarray(image), 90, colorspace="RGB", colorsubsampling="440"),
    "codes of its own": lambda image: encode(image, "JPEG", quality=95, optimize=True),
    "coarse": lambda image: encode(image, "JPEG", quality=40),
    "fine": lambda image: encode(image, "JPEG", quality=100),
    "restarts": lambda image: encode(image, "JPEG", quality=90, restart_marker_blocks=5),
    "restarts of lines": lambda image: encode(image, "JPEG", quality=90, restart_marker_rows=1),
    "gray": lambda image: encode(image.convert("L"), "JPEG", quality=90),
    "upright": lambda image: encode(image, "JPEG", quality=90, exif=orientation(1)),
    "broken exif": lambda image: encode(image, "JPEG", quality=90, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "junk after the end": lambda image: encode(image, "JPEG", quality=90) + b"junk",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_that_of_the_full_one_made_smaller(kind: str) -> None:
    rng = np.random.default_rng(7)
    for seed in range(6):
        served = (int(rng.integers(420, 1400)), int(rng.integers(420, 1400)))
        config = DownloadConfig(image_size=int(rng.integers(40, 300)), encode_quality=100)
        data = KINDS[kind](photograph(*served, seed))
        made = images.prepare_usual(data, config)
        eighths = 8 * config.image_size / min(served)
        assert isinstance(made, Picture) or eighths > jpeg.MAX_EIGHTHS - 1, served
        made = images.prepare(data, config)
        assert isinstance(made, Picture)
        full = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        expected = cv2.resize(full, (made.width, made.height), interpolation=cv2.INTER_AREA)
        found = np.asarray(Image.open(io.BytesIO(made.image)).convert("RGB"))
        assert psnr(cv2.cvtColor(found, cv2.COLOR_RGB2GRAY), cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY)) > 34
        assert psnr(found, expected) > 33
        of_rgb = images.look_of_rgb(expected, config)
        assert (made.phash ^ of_rgb.phash).bit_count() <= 4
        assert np.abs(np.subtract(*(np.frombuffer(one.colors, np.uint8).astype(int) for one in (made, of_rgb)))).max() <= 3


def test_the_same_file_is_the_same_picture_whatever_was_in_memory_before() -> None:
    rng, odd = np.random.default_rng(5), 0
    for seed in range(60):
        served = (int(rng.integers(150, 500)), int(rng.integers(150, 500)))
        data = list(KINDS.values())[seed % len(KINDS)](photograph(*served, seed))
        config = DownloadConfig(image_size=int(rng.integers(20, 70)))
        found = set()
        for filling in (0.0, 1e30, np.nan, 77.0):
            waste = [np.full(int(num_numbers), filling, np.float32) for num_numbers in rng.integers(100, 100_000, 8)]
            del waste
            made = images.prepare_usual(data, config)
            assert isinstance(made, Picture)
            found.add(made)
        assert len(found) == 1, (served, config.image_size)
        odd += (made.height % 2) + (made.width % 2)
    assert odd > 20


@pytest.mark.parametrize("mode", ["keep_ratio", "keep_ratio_largest", "center_crop", "border"])
@pytest.mark.parametrize("value", range(1, 9))
def test_turned_and_cut_pictures_are_those_of_the_general_way(mode: str, value: int) -> None:
    config = replace(DownloadConfig(image_size=101, encode_quality=100), resize_mode=mode)
    data = encode(photograph(997, 641, value), "JPEG", quality=95, exif=orientation(value))
    usual, other = images.prepare_usual(data, config), images.prepare_any(data, "JPEG", config)
    assert isinstance(usual, Picture)
    assert isinstance(other, Picture)
    for field in ("width", "height", "original_width", "original_height", "media_type", "sha256"):
        assert getattr(usual, field) == getattr(other, field)
    ours, theirs = (np.asarray(Image.open(io.BytesIO(one.image)).convert("RGB")) for one in (usual, other))
    assert psnr(ours, theirs) > 34
    assert (usual.phash ^ other.phash).bit_count() <= 4


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("served", [(1699, 1275), (1277, 1707), (801, 1065)])
def test_an_edge_stays_where_it_is(served: Size, progressive: bool) -> None:
    for axis in (0, 1):
        place = 0.93 * served[axis]
        ramp = (np.arange(served[axis]) > place).astype(np.uint8) * 200 + 20
        gray = np.broadcast_to(ramp if axis == 0 else ramp[:, None], served[::-1])
        rgb = np.stack([gray, 255 - gray, gray], -1)
        made = images.prepare(encode(Image.fromarray(rgb), "JPEG", quality=95, progressive=progressive), DownloadConfig())
        assert isinstance(made, Picture)
        found = np.asarray(Image.open(io.BytesIO(made.image)).convert("RGB")).astype(float)
        for channel in range(3):
            line = found[..., channel].mean(axis=axis)
            dark, light = sorted((line[0], line[-1]))
            share = (light - line).mean() / (light - dark) if channel != 1 else (line - dark).mean() / (light - dark)
            assert share == pytest.approx(np.ceil(place) / served[axis], abs=0.4 / len(line))


def test_other_kinds_are_left_to_libjpeg_turbo() -> None:
    image = photograph(300, 220)
    usual = encode(image, "JPEG", quality=85)
    others = {
        "progressive": encode(image, "JPEG", progressive=True),
        "cmyk": encode(image.convert("CMYK"), "JPEG"),
        "rgb": encode(image, "JPEG", keep_rgb=True),
        "bytes before the end": usual[:-2] + b"\0\0\xff\xd9",
        "a bit of padding too many": usual[:-2] + b"\xff\0\xff\xd9",
        "no end": usual[:-2],
        "restart where none is due": usual[:-200] + b"\xff\xd0" + usual[-200:],
        "turned by XMP": encode(image, "JPEG", xmp=b'<x tiff:Orientation="6"/>'),
        "lines after the scan": usual[:-2] + b"\xff\xdc\0\4\0\xdc\xff\xd9",
    }
    assert planes(usual, (75, 55)) is not None
    assert {name for name, data in others.items() if planes(data, (75, 55)) is not None} == set()
    assert isinstance(images.prepare(others["progressive"], DownloadConfig(image_size=55)), Picture)
    marks = encode(image, "JPEG", quality=85, restart_marker_blocks=9)
    swapped = marks.replace(b"\xff\xd1", b"\xff\xd9x").replace(b"\xff\xd2", b"\xff\xd1").replace(b"\xff\xd9x", b"\xff\xd2")
    assert planes(marks, (75, 55)) is not None
    assert planes(swapped, (75, 55)) is None
    for cut in range(0, len(usual) - 1, 53):
        assert planes(usual[:cut], (75, 55)) is None


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A JPEG after a few changes of one sort."""
    out = bytearray(data)
    sort = rng.integers(4)
    if sort == 0:
        return mutate(data, rng)
    if sort == 1:  # bits of the scan
        for _ in range(int(rng.integers(1, 4))):
            out[int(rng.integers(len(data) // 2, len(data) - 2))] ^= 1 << int(rng.integers(8))
    elif sort == 2:  # the header
        out[int(rng.integers(700))] = int(rng.integers(256))
    else:
        start = int(rng.integers(600, len(data) - 2))
        del out[start : start + int(rng.integers(1, 20))]
    return bytes(out)


def whole_files() -> list[bytes]:
    """One of each kind."""
    return [make(photograph(300, 220)) for make in KINDS.values()]


def check(data: bytes, size: Size) -> str | None:
    """None where a file is not read here; else what libjpeg-turbo finds wrong with it, "" for nothing that matters."""
    found = planes(data, size)
    if found is None:
        return None
    half = (-(-size[0] // 2), -(-size[1] // 2))
    assert [plane.shape[::-1] for plane in found] == [size, half, half]
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:
        return "" if any(words in str(error) for words in (*HARMLESS, "JFIF revision")) else str(error)
    return ""


def read_damaged(seeds: range) -> int:
    """How many damaged files are read here, each of which libjpeg-turbo reads too."""
    whole, num_read = whole_files(), 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        data = damaged(whole[seed % len(whole)], rng)
        said = check(data, (int(rng.integers(16, 180)), int(rng.integers(16, 130))))
        assert not said, (seed, said)
        num_read += said is not None
    return num_read


def test_a_damaged_file_that_is_read_here_libjpeg_turbo_reads_too() -> None:
    assert read_damaged(range(4000)) > 800


@pytest.mark.slow
def test_no_damaged_file_makes_the_kernel_leave_its_arrays(tmp_path: object) -> None:
    code = "from tests.pipeline.test_jpeg import read_damaged; print(read_damaged(range(9000, 39000)))"
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 5000


def random_code(rng: np.random.Generator, symbols: list[int]) -> tuple[bytes, bytes]:
    """A Huffman code of these symbols, as a DHT segment has it: counts of each size, and the symbols."""
    sizes = [0] * 17
    free = [(1, 0), (1, 1)]
    while len(free) < len(symbols) + 1:  # one is left over: no code is all ones
        size, code = free.pop(int(rng.integers(len(free))) if rng.random() < 0.5 else 0)
        if size == 16:
            free.append((size, code))
            continue
        free += [(size + 1, 2 * code), (size + 1, 2 * code + 1)]
    lengths = sorted(size for size, _ in free)[:-1]
    for size in lengths:
        sizes[size] += 1
    return bytes(sizes[1:]), bytes(symbols)


def codes_of(counts: bytes, symbols: bytes) -> dict[str, int]:
    """T.81, annex C: the codes in bits, and what they stand for."""
    found, code, place = {}, 0, 0
    for size, count in enumerate(counts, 1):
        for _ in range(count):
            found[f"{code:0{size}b}"] = symbols[place]
            code, place = code + 1, place + 1
        code <<= 1
    return found


def walk(bits: str, codes: dict[str, int]) -> tuple[int, int, bool]:
    """Bits of the codes with values that are whole in `bits`, how far they go on, and whether the block ends with them."""
    taken = steps = 0
    while True:
        size = next((n for n in range(1, 17) if bits[taken : taken + n] in codes and taken + n <= len(bits)), 0)
        if not size:
            return taken, steps, False
        symbol = codes[bits[taken : taken + size]]
        step = 0 if symbol == 0 else (symbol >> 4) + 1
        if taken + size + (symbol & 15) > len(bits) or steps + step > kernel.BLOCK:
            return taken, steps, False
        taken, steps = taken + size + (symbol & 15), steps + step
        if symbol == 0:
            return taken, steps, True


@pytest.mark.parametrize("seed", range(6))
def test_steps_of_several_codes_are_the_codes_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    usual = [0, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 11))]
    symbols = [usual[place] for place in rng.permutation(len(usual))[: int(rng.integers(2, len(usual)))]]
    counts, listed = random_code(rng, symbols)
    codes = codes_of(counts, listed)
    assert len(codes) == len(symbols)
    row = jpeg.code_row(False, counts, listed)
    for index in range(1 << kernel.SKIP_BITS):
        entry = int(row[kernel.SKIPS + index])
        taken, steps, ends = walk(f"{index:0{kernel.SKIP_BITS}b}", codes)
        expected = taken | (steps + kernel.END * ends) << kernel.STEP_SHIFT if taken else kernel.NOTHING_FITS
        assert entry == expected
    for bits, symbol in codes.items():
        size, values = len(bits), symbol & 15
        entry = size + values | (0 if symbol == 0 else (symbol >> 4) + 1) << kernel.STEP_SHIFT | values << kernel.SIZE_SHIFT
        place = (int(bits, 2) + int(row[kernel.OFFSETS + size])) & 255
        assert row[kernel.SYMBOLS + place] == entry
        if size <= kernel.CODE_BITS:
            first = int(bits, 2) << (kernel.CODE_BITS - size)
            assert set(row[first : first + (1 << (kernel.CODE_BITS - size))]) == {entry}


@pytest.mark.parametrize(
    ("is_dc", "counts", "symbols"),
    [
        (False, bytes([2, *[0] * 15]), b"\x01\x02"),  # a code of ones
        (False, bytes([0, 5, *[0] * 14]), b"\x01\x02\x03\x04\x05"),  # more codes than there are
        (False, bytes([1, *[0] * 15]), b"\x0b"),  # a value of 11 bits
        (False, bytes([1, *[0] * 15]), b"\x20"),  # a run of zeros that ends with none
        (True, bytes([1, *[0] * 15]), b"\x0c"),
    ],
)
def test_a_code_that_is_none_is_unusual(is_dc: bool, counts: bytes, symbols: bytes) -> None:
    with pytest.raises(jpeg.Unusual):
        jpeg.code_row(is_dc, counts, symbols)
