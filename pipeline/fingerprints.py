"""What identifies a picture whatever its encoding and size: a perceptual hash of its brightness, and its colors.

in      the pixels of a picture as it is stored
out     phash 64 bits, colors 48 bytes
law     the same pixels give the same numbers; brightness and color planes give what the RGB of the same picture gives, or nearly
source  phash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), DCT hash
letters H height, W width, in px; rgb arrays are uint8 [H, W, 3], gray ones uint8 [H, W]
"""

from functools import lru_cache

import cv2
import numpy as np

HASH_GRID_PX = 32  # side of the gray picture that is transformed
HASH_TERMS = 8  # lowest frequencies kept, each way
FLAT = 2.0  # gray levels times 32: a coefficient so near to the median is noise of the encoder, not picture
COLOR_GRID = 4
NO_COLOR = (0, 128, 128)
RGB_OF_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])  # JFIF


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
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return _bits(hash_terms(len(gray)) @ gray.astype(np.float32) @ hash_terms(gray.shape[1]).T)


def _bits(terms: np.ndarray) -> int:
    """The hash of a picture's lowest terms.  [HASH_TERMS, HASH_TERMS]"""
    terms = terms.ravel()
    middle = len(terms) // 2 - 1
    bits = terms > np.partition(terms[1:], middle)[middle] + FLAT
    bits[0] = False
    return int(BITS[bits].sum(dtype=np.uint64))


def colors(rgb: np.ndarray) -> bytes:
    """Mean RGB of each cell of a 4 x 4 grid, row by row: 48 bytes.  rgb: uint8 [H, W, 3]"""
    height, width, _ = rgb.shape
    rows = (color_means(height) @ rgb.reshape(height, width * 3).astype(np.float32)).reshape(COLOR_GRID, width, 3)
    return np.rint(color_means(width) @ rows).astype(np.uint8).tobytes()


def of_planes(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> tuple[int, bytes]:
    """`phash` and `colors` of the planes of a JPEG, each uint8 [H, W] of its own size."""
    gray = y.astype(np.float32)
    height, width = gray.shape
    bits = _bits(hash_terms(height) @ gray @ hash_terms(width).T)
    planes = (gray, cb.astype(np.float32), cr.astype(np.float32))
    means = np.stack([color_means(len(plane)) @ plane @ color_means(plane.shape[1]).T for plane in planes], axis=-1)
    rgb = (means - NO_COLOR) @ RGB_OF_YCBCR.T
    return bits, np.rint(rgb.clip(0, 255)).astype(np.uint8).tobytes()
