"""What identifies a picture whatever its encoding and size: a perceptual hash of its brightness, and its colors.

in      the pixels of a picture as it is stored
out     phash 64 bits, colors 48 bytes
law     the same pixels give the same numbers; brightness and color planes give what the RGB of the same picture gives, or nearly
source  phash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), DCT hash
letters H height, W width, in px; rgb arrays are uint8 [H, W, 3], gray ones uint8 [H, W]
"""

import math

import cv2
import numpy as np

from pipeline.compiled import bare, bare_inner

HASH_GRID_PX = 32  # side of the gray picture that is transformed
HASH_TERMS = 8  # lowest frequencies kept, each way
FLAT = 2.0  # gray levels times 32: a coefficient so near to the median is noise of the encoder, not picture
COLOR_GRID = 4
NO_COLOR = 128.0
RED_OF_CR, GREEN_OF_CB, GREEN_OF_CR, BLUE_OF_CB = 1.402, 0.344136, 0.714136, 1.772  # JFIF


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


@bare_inner
def _add_line(line, weight, total) -> None:
    for place in range(len(total)):
        total[place] += np.float32(line[place]) * weight


@bare
def _add_means(pixels, channels, lines, grid) -> None:
    """`grid_means` into grid, zeros [cells, cells, channels].

    pixels [H, W * channels]; lines, zeros [cells, W * channels]: to work in
    """
    cells, height, width = len(grid), pixels.shape[0], pixels.shape[1] // channels
    for cell in range(cells):
        first, last = cell * height / cells, (cell + 1) * height / cells
        for y in range(int(first), min(height, math.ceil(last))):
            covered = min(last, y + 1.0) - max(first, float(y))
            _add_line(pixels[y], np.float32(covered * cells / height), lines[cell])
    for cell in range(cells):
        first, last = cell * width / cells, (cell + 1) * width / cells
        for x in range(int(first), min(width, math.ceil(last))):
            covered = min(last, x + 1.0) - max(first, float(x))
            weight = np.float32(covered * cells / width)
            for row in range(cells):
                for channel in range(channels):
                    grid[row, cell, channel] += lines[row, x * channels + channel] * weight


def grid_means(pixels: np.ndarray, cells: int) -> np.ndarray:
    """The means of cells x cells equal parts of a picture, cut where they must be: the same numbers on every machine.

    pixels: uint8 [H, W] or [H, W, C]  -> float32 [cells, cells, C], C 1 where it is not said
    """
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    channels = flat.shape[1] // pixels.shape[1]
    grid = np.zeros((cells, cells, channels), np.float32)
    _add_means(flat, channels, np.zeros((cells, flat.shape[1]), np.float32), grid)
    return grid


@bare
def _join_colors(brightness, cb, cr, rgb) -> None:
    """rgb uint8 [COLOR_GRID, COLOR_GRID, 3]: the colors of means by JFIF. brightness: of any multiple of COLOR_GRID cells."""
    part = len(brightness) // len(rgb)
    for row in range(len(rgb)):
        for cell in range(len(rgb)):
            y = 0.0
            for place in range(part * part):
                y += brightness[row * part + place // part, cell * part + place % part, 0]
            y, blue, red = y / (part * part), cb[row, cell, 0] - NO_COLOR, cr[row, cell, 0] - NO_COLOR
            rgb[row, cell, 0] = np.uint8(np.rint(min(max(y + RED_OF_CR * red, 0.0), 255.0)))
            rgb[row, cell, 1] = np.uint8(np.rint(min(max(y - GREEN_OF_CB * blue - GREEN_OF_CR * red, 0.0), 255.0)))
            rgb[row, cell, 2] = np.uint8(np.rint(min(max(y + BLUE_OF_CB * blue, 0.0), 255.0)))


def phash(rgb: np.ndarray) -> int:
    """64 bits that stay the same, or nearly, when the picture is resized or encoded again; colour plays no part.

    Bit 8 * i + j is 1 where coefficient (i, j) of the gray picture is clearly above the median of all but (0, 0); bit 0
    is always 0. A picture of one colour has hash 0.  rgb: uint8 [H, W, 3]
    """
    return _hash_of(grid_means(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), HASH_GRID_PX))


def _hash_of(gray: np.ndarray) -> int:
    """The hash of a gray picture's means.  float32 [HASH_GRID_PX, HASH_GRID_PX, 1]"""
    terms = (BASIS @ gray[:, :, 0] @ BASIS.T).ravel()
    middle = len(terms) // 2 - 1
    bits = terms > np.partition(terms[1:], middle)[middle] + FLAT
    bits[0] = False
    return int(BITS[bits].sum(dtype=np.uint64))


def colors(rgb: np.ndarray) -> bytes:
    """Mean RGB of each cell of a 4 x 4 grid, row by row: 48 bytes.  rgb: uint8 [H, W, 3]"""
    return np.rint(grid_means(rgb, COLOR_GRID)).astype(np.uint8).tobytes()


def of_planes(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> tuple[int, bytes]:
    """`phash` and `colors` of the planes of a JPEG, each uint8 [H, W] of its own size."""
    gray, rgb = grid_means(y, HASH_GRID_PX), np.empty((COLOR_GRID, COLOR_GRID, 3), np.uint8)
    _join_colors(gray, grid_means(cb, COLOR_GRID), grid_means(cr, COLOR_GRID), rgb)
    return _hash_of(gray), rgb.tobytes()
