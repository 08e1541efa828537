"""The size at which a picture is stored, and the way there from pixels that come reduced already.

in      width and height as served; pixels of the whole picture, or of it at some eighths
out     the same picture at its stored size
law     a pixel stays where it is in the picture: where a reduced size is no whole number of pixels, the last one covers less
source  resize modes: img2dataset's `resize_mode`
"""

import cv2
import numpy as np

from pipeline.config import DownloadConfig

LINEAR_UP_TO = 2.01  # times smaller: the areas of a nearly right size are what linear interpolation gives too, in a seventh of
# the time


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


def fit(
    pixels: np.ndarray, extent: tuple[float, float], size: tuple[int, int], covered: tuple[float, float] | None = None
) -> np.ndarray:
    """The pixels, of any number of channels, brought to `size`, which is not above that of the picture as it was served.

    extent: width and height of the picture in these pixels, of which the last ones may reach beyond it
    size: width and height. covered: how much of that the picture is to cover; nothing: all
    """
    if pixels.shape[1::-1] == size == extent:
        return pixels
    width, height = covered or size
    factors = (width / extent[0], height / extent[1])
    method = cv2.INTER_LINEAR if min(factors) * LINEAR_UP_TO >= 1 else cv2.INTER_AREA
    fitted = cv2.resize(pixels, None, fx=factors[0], fy=factors[1], interpolation=method)[: size[1], : size[0]]
    missing = (size[0] - fitted.shape[1], size[1] - fitted.shape[0])
    if any(missing):  # a part of a pixel was not rounded up
        fitted = cv2.copyMakeBorder(fitted, 0, missing[1], 0, missing[0], cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(fitted)
