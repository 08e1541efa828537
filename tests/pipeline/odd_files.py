"""Pictures of every format and kind that the download reads, and ways to break them."""

import io

import numpy as np
from PIL import Image

RESAMPLE = Image.Resampling.BICUBIC


def shapes(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    """A picture of soft coloured shapes, as different from another seed's as two photographs."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), RESAMPLE)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


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
