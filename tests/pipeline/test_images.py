"""Decode, resize and identify: against Pillow as an oracle, img2dataset's sizes written out, and thousands of broken files."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline import images
from pipeline.config import DownloadConfig
from pipeline.images import Picture, colors, phash, prepare, stored_size

CONFIG = DownloadConfig(resize_mode="no")
RESAMPLE = Image.Resampling.BICUBIC


@pytest.fixture(autouse=True)
def guard():
    images.guard_pillow(CONFIG.max_image_pixels)


def shapes(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    """A picture of soft coloured shapes, as different from another seed's as two photographs."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), RESAMPLE)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(result: Picture | str) -> np.ndarray:
    assert isinstance(result, Picture), result
    return np.asarray(Image.open(io.BytesIO(result.image)).convert("RGB"))


def psnr(left: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((left.astype(float) - right.astype(float)) ** 2))))


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def odd_files() -> dict[str, tuple[bytes, Image.Image]]:
    """Name -> (file, the RGB picture that it shows)."""
    base = shapes()
    gray = np.asarray(base.convert("L")).astype(np.uint16)
    clear = base.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(base.size))
    white = Image.alpha_composite(Image.new("RGBA", base.size, "white"), clear).convert("RGB")
    holes = base.quantize(16)
    hole = holes.convert("RGBA")
    hole.putalpha(Image.fromarray(np.where(np.asarray(holes) == 3, 0, 255).astype(np.uint8)))
    on_white = Image.alpha_composite(Image.new("RGBA", base.size, "white"), hole).convert("RGB")
    cmyk = base.convert("CMYK")
    files = {
        "jpeg": (encode(base, "JPEG", quality=95), base),
        "jpeg progressive": (encode(base, "JPEG", quality=95, progressive=True), base),
        "jpeg gray": (encode(base.convert("L"), "JPEG", quality=95), base.convert("L").convert("RGB")),
        "jpeg cmyk": (encode(cmyk, "JPEG", quality=95), cmyk.convert("RGB")),
        "jpeg with junk before the end": (encode(base, "JPEG", quality=95)[:-2] + b"\0\0\xff\xd9", base),
        "jpeg with junk after the end": (encode(base, "JPEG", quality=95) + b"junk", base),
        "png": (encode(base, "PNG"), base),
        "png 16-bit gray": (encode(Image.fromarray(gray * 257), "PNG"), base.convert("L").convert("RGB")),
        "png 1-bit": (encode(base.convert("1"), "PNG"), base.convert("1").convert("RGB")),
        "png alpha": (encode(clear, "PNG"), white),
        "png gray and alpha": (encode(white.convert("LA"), "PNG"), white.convert("L").convert("RGB")),
        "png palette with a clear colour": (encode(holes, "PNG", transparency=3), on_white),
        "gif animated": (encode(base.quantize(16), "GIF", save_all=True, append_images=[base.quantize(4)]), None),
        "gif clear": (encode(holes, "GIF", transparency=3), on_white),
        "webp": (encode(base, "WEBP", quality=95), base),
        "webp alpha": (encode(clear, "WEBP", lossless=True), white),
        "webp animated": (encode(base, "WEBP", lossless=True, save_all=True, append_images=[shapes(seed=1)]), base),
        "bmp": (encode(base, "BMP"), base),
        "avif": (encode(base, "AVIF", quality=95), base),
    }
    files["gif animated"] = (files["gif animated"][0], base.quantize(16).convert("RGB"))
    return files


FILES = odd_files()


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_looks_as_pillow_says(name):
    data, expected = FILES[name]
    result = prepare(data, replace(CONFIG, encode_quality=100))
    assert psnr(pixels(result), np.asarray(expected)) > 27
    assert isinstance(result, Picture)
    assert result.media_type == {"jpeg": "image/jpeg", "png": "image/png"}.get(name.split()[0], f"image/{name.split()[0]}")
    assert (result.original_width, result.original_height, result.original_bytes) == (90, 60, len(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_picture_stands_upright_as_exif_says(value, kind):
    data = encode(shapes(400, 250), kind, exif=orientation(value), quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    whole, small = (prepare(data, replace(CONFIG, resize_mode=mode, image_size=60)) for mode in ("no", "keep_ratio"))
    assert isinstance(whole, Picture)
    assert (whole.original_width, whole.original_height) == upright.size
    assert psnr(pixels(whole), np.asarray(upright)) > 30
    assert isinstance(small, Picture)
    assert (small.width, small.height) == ((96, 60) if value < 5 else (60, 96))
    assert psnr(pixels(small), np.asarray(upright.resize((small.width, small.height), Image.Resampling.BOX))) > 30


def test_a_16_bit_png_in_colour_is_scaled_and_not_clipped():
    data = cv2.imencode(".png", np.asarray(shapes())[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert psnr(pixels(prepare(data, CONFIG)), np.asarray(shapes())) > 30


# mode, only if bigger, size served, size stored: what img2dataset 1.47 makes with image_size=256
SIZES = [
    ("keep_ratio", True, (1000, 500), (512, 256)),
    ("keep_ratio", True, (333, 1001), (256, 770)),
    ("keep_ratio", True, (256, 900), (256, 900)),
    ("keep_ratio", True, (200, 100), (200, 100)),
    ("keep_ratio", False, (200, 100), (512, 256)),
    ("keep_ratio_largest", True, (1000, 500), (256, 128)),
    ("keep_ratio_largest", True, (200, 100), (200, 100)),
    ("keep_ratio_largest", False, (200, 100), (256, 128)),
    ("center_crop", True, (1000, 501), (256, 256)),
    ("center_crop", True, (255, 400), (255, 400)),
    ("center_crop", False, (100, 150), (256, 256)),
    ("border", True, (1000, 501), (256, 256)),
    ("border", True, (200, 100), (200, 100)),
    ("border", False, (200, 100), (256, 256)),
    ("no", True, (1000, 500), (1000, 500)),
    ("no", False, (100, 50), (100, 50)),
]


@pytest.mark.parametrize(("mode", "only_if_bigger", "served", "stored"), SIZES)
def test_sizes_are_those_of_img2dataset(mode, only_if_bigger, served, stored):
    config = DownloadConfig(image_size=256, resize_mode=mode, resize_only_if_bigger=only_if_bigger)
    for kind in ("JPEG", "PNG"):
        result = prepare(encode(shapes(*served), kind), config)
        assert isinstance(result, Picture)
        assert (result.width, result.height) == stored
        assert pixels(result).shape[1::-1] == stored


def test_crop_takes_the_middle_and_border_is_white():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 128, 0).repeat(3, 2)
    data = encode(Image.fromarray(ramp), "PNG")
    crop = pixels(prepare(data, DownloadConfig(image_size=64, resize_mode="center_crop")))
    assert crop[:, 0].mean() == pytest.approx(65, abs=3)
    assert crop[:, -1].mean() == pytest.approx(191, abs=3)
    border = pixels(prepare(data, DownloadConfig(image_size=64, resize_mode="border")))
    assert border[:14].min() > 245
    assert border[-14:].min() > 245
    assert border[32, 0].mean() < 10


@pytest.mark.parametrize("seed", range(5))
def test_reduced_decoding_gives_the_picture_of_the_full_one(seed):
    served = shapes(1500 + 37 * seed, 1000 + 53 * seed, seed)
    config = DownloadConfig(image_size=256)
    result = prepare(encode(served, "JPEG", quality=95), config)
    assert isinstance(result, Picture)
    assert (result.width, result.height) == stored_size(*served.size, config)
    full = cv2.resize(np.asarray(served), (result.width, result.height), interpolation=cv2.INTER_AREA)
    assert psnr(pixels(result), full) > 38


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((31, 100), "too_small"),
        ((32, 128), None),
        ((32, 129), "aspect"),
        ((129, 32), "aspect"),
        ((300, 401), "bomb"),
        ((300, 400), None),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"])
def test_limits_are_read_off_the_header(kind, size, reason):
    config = DownloadConfig(min_image_size=32, max_aspect_ratio=4.0, max_image_pixels=120_000, resize_mode="no")
    result = prepare(encode(shapes(*size), kind), config)
    assert (None if isinstance(result, Picture) else result) == reason


def test_a_bomb_is_seen_before_a_tear_and_a_tear_at_every_cut():
    data = encode(shapes(), "JPEG")
    assert prepare(data[:-40], replace(CONFIG, max_image_pixels=1000)) == "bomb"
    for cut in (*range(3, len(data), 97), len(data) - 2, len(data) - 1):
        assert prepare(data[:cut], CONFIG) == "decode", cut
    assert prepare(data[:2], CONFIG) == prepare(b"", CONFIG) == prepare(b"<html>", CONFIG) == "not_an_image"


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with a few bytes changed, taken out or put in, most of them near its start; often cut short."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, len(broken) if rng.random() < 0.5 else min(len(broken), 120)))
        match int(rng.integers(0, 4)):
            case 0:
                broken[place] = int(rng.integers(0, 256))
            case 1:
                broken[place] ^= 1 << int(rng.integers(0, 8))
            case 2:
                del broken[place : min(place + int(rng.integers(1, 20)), len(broken) - 1)]
            case 3:
                broken[place:place] = rng.bytes(int(rng.integers(1, 20)))
    return bytes(broken[: int(rng.integers(0, len(broken)))] if rng.random() < 0.2 else broken)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FILES)
def test_no_broken_file_gets_past_the_closed_list(name):
    config = DownloadConfig(image_size=32, min_image_size=1, max_aspect_ratio=1e9, max_image_pixels=1_000_000)
    images.guard_pillow(config.max_image_pixels)
    seen = set()
    for seed in range(120):
        result = prepare(mutate(FILES[name][0], np.random.default_rng(seed)), config)
        assert isinstance(result, Picture) or result in images.DROPS
        seen.add(result if isinstance(result, str) else "kept")
    assert "decode" in seen


def test_phash_and_colors_keep_under_recompression_and_resizing():
    for seed in range(40):
        base, rng = shapes(320, 240, seed), np.random.default_rng(seed)
        size = (int(rng.integers(100, 400)), int(rng.integers(100, 400)))
        copy = Image.open(io.BytesIO(encode(base.resize(size, RESAMPLE), "JPEG", quality=int(rng.integers(30, 95)))))
        ours, theirs = np.asarray(base), np.asarray(copy)
        assert (phash(ours) ^ phash(theirs)).bit_count() <= 4
        assert np.abs(np.frombuffer(colors(ours), np.uint8).astype(int) - np.frombuffer(colors(theirs), np.uint8)).max() <= 12


def test_phash_tells_pictures_apart():
    hashes = [phash(np.asarray(shapes(320, 240, seed))) for seed in range(60)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 4
    assert 24 < np.mean(distances) < 40


def test_phash_is_the_dct_of_the_gray_picture():
    rgb = np.asarray(shapes(64, 64, 3))
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).reshape(32, 2, 32, 2).mean((1, 3))
    terms = cv2.dct(gray.astype(np.float64))[:8, :8].ravel()
    bits = terms > np.median(terms[1:]) + images.FLAT
    assert phash(rgb) == sum(1 << i for i in range(1, 64) if bits[i])
    assert phash(np.full((50, 70, 3), 137, np.uint8)) == 0


def test_colors_are_means_of_a_4_by_4_grid():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    expected = rgb.reshape(4, 10, 4, 20, 3).astype(float).mean((1, 3)).ravel()
    assert np.abs(np.frombuffer(colors(rgb), np.uint8) - expected).max() <= 0.5 + 1e-6
    assert len(colors(rgb[:2, :3])) == 48
