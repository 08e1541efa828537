"""Decode, resize and identify: against Pillow as an oracle, img2dataset's sizes written out, and thousands of broken files."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline import fingerprints, images, pictures
from pipeline.config import DownloadConfig
from pipeline.fingerprints import colors, phash
from pipeline.images import prepare
from pipeline.pictures import Picture
from pipeline.scaling import stored_size
from tests.pipeline.odd_files import FILES, RESAMPLE, encode, mutate, orientation, shapes

CONFIG = DownloadConfig(resize_mode="no")


@pytest.fixture(autouse=True)
def guard():
    images.guard_pillow(CONFIG.max_image_pixels)


def pixels(result: Picture | str) -> np.ndarray:
    assert isinstance(result, Picture), result
    return np.asarray(Image.open(io.BytesIO(result.image)).convert("RGB"))


def psnr(left: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((left.astype(float) - right.astype(float)) ** 2))))


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FILES)
def test_no_broken_file_gets_past_the_closed_list(name):
    config = DownloadConfig(image_size=32, min_image_size=1, max_aspect_ratio=1e9, max_image_pixels=1_000_000)
    images.guard_pillow(config.max_image_pixels)
    seen = set()
    for seed in range(120):
        result = prepare(mutate(FILES[name][0], np.random.default_rng(seed)), config)
        assert isinstance(result, Picture) or result in pictures.DROPS
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
    bits = terms > np.median(terms[1:]) + fingerprints.FLAT
    assert phash(rgb) == sum(1 << i for i in range(1, 64) if bits[i])
    assert phash(np.full((50, 70, 3), 137, np.uint8)) == 0


def test_colors_are_means_of_a_4_by_4_grid():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    expected = rgb.reshape(4, 10, 4, 20, 3).astype(float).mean((1, 3)).ravel()
    assert np.abs(np.frombuffer(colors(rgb), np.uint8) - expected).max() <= 0.5 + 1e-6
    assert len(colors(rgb[:2, :3])) == 48
