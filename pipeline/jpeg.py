"""JPEG files of the usual kind -> brightness and color at the size that is wanted, with nothing more decoded than that takes.

in      bytes that begin as a JPEG; hostile
out     planes Y, Cb and Cr as a JPEG with 4:2:0 keeps them, or None: the file is for libjpeg-turbo, sound or not
law     a file that is not plainly whole and sound is None. What is read here: one interleaved Huffman-coded scan of 8 bits, gray
        or YCbCr with colors at full or half size (SOF0, SOF1), restarts, and nothing between the scan and the end mark
law     the same bytes give the same planes on every machine
cost    a photograph of 1.2 megapixels for 256 px: 0.6 of libjpeg-turbo's time (tests/benchmarks/jpeg.py); 0.07 ms more where
        its Huffman codes are its own
source  ITU-T T.81, annex B (marks); JFIF 1.02; Adobe's APP14
"""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from pipeline import fingerprints, scaling
from pipeline import jpeg_kernel as kernel

SOF0, SOF1, DHT, SOS, DQT, DRI, APP0, APP1, APP14 = 0xC0, 0xC1, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xEE
UNSAID = {0x01, 0xFF, 0xC2, 0xC3, *range(0xC5, 0xDA), 0xDC, 0xDE, 0xDF}  # other frames, and what has no length
XMP_TURNED = re.compile(rb'tiff:Orientation(?:="|>)[2-8]')  # Pillow turns a picture by this where EXIF says nothing
YCBCR = 1  # as APP14 says it
MAX_EIGHTHS = 5  # of the brightness: from 6/8 on libjpeg-turbo is as fast in full
MIN_SIDE = 16  # px of what is wanted
CODES_KEPT = 64
NO_COLOR = 128


Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, Cb, Cr: uint8 [H, W] each


class Unusual(Exception):
    """The file is not of the kind that is read here, or it is broken."""


@dataclass(slots=True)
class Component:
    """One of a frame: its samples for the fewest of any, each way, and its tables."""

    name: int
    across: int
    down: int
    quantizer: int
    codes: tuple[int, int] = (0, 0)  # of DC and AC: keys of Header.codes


@dataclass(slots=True)
class Header:
    """What stands before the scan, and where that begins."""

    width: int = 0
    height: int = 0
    components: list[Component] = field(default_factory=list)
    quantizers: dict[int, bytes] = field(default_factory=dict)
    codes: dict[int, tuple[bool, bytes, bytes]] = field(default_factory=dict)  # whether of DC, codes of each size, symbols
    interval: int = 0
    is_jfif: bool = False
    exif: bytes = b""
    adobe: int | None = None
    scan: int = 0


@dataclass(slots=True)
class Plane:
    """A component as it is drawn: at so many eighths; `extent` of it, in px, is the picture's."""

    eighths: int
    extent: tuple[float, float]
    samples: np.ndarray  # uint8 [eighths, rows, blocks]: sample x of block b in row y is at [x, y, b]

    def pixels(self) -> np.ndarray:
        """uint8 [H, W]; the last ones may reach beyond the picture."""
        whole = cv2.merge(list(self.samples)).reshape(self.samples.shape[1], -1)
        return whole[: math.ceil(self.extent[1]), : math.ceil(self.extent[0])]


def segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marks with their contents, and where each ends, until a scan begins."""
    at, mark = 2, 0
    while mark != SOS:
        first, mark, length = struct.unpack_from(">BBH", data, at)
        at += 2 + length
        if first != 0xFF or mark in UNSAID or length < 2 or at > len(data):
            raise Unusual
        yield mark, data[at - length + 2 : at], at


def read_header(data: bytes) -> Header | None:
    """What is before the scan; None where it is none that is read here."""
    try:
        return _header(data)
    except (Unusual, struct.error, IndexError):
        return None


def _header(data: bytes) -> Header:
    header = Header()
    for mark, content, end in segments(data):
        if mark == DQT:
            _read_quantizers(content, header)
        elif mark == DHT:
            _read_codes(content, header)
        elif mark in (SOF0, SOF1):
            _read_frame(content, header)
        elif mark == DRI:
            (header.interval,) = struct.unpack(">H", content)
        elif mark == APP0 and content.startswith(b"JFIF\0"):
            header.is_jfif = True
        elif mark == APP1 and (XMP_TURNED.search(content) or (header.exif and content.startswith(b"Exif\0\0"))):
            raise Unusual
        elif mark == APP1 and content.startswith(b"Exif\0\0"):
            header.exif = content
        elif mark == APP14 and content.startswith(b"Adobe"):
            header.adobe = content[11]
        elif mark == SOS:
            _read_scan(content, header)
            header.scan = end
    return header


def _read_quantizers(content: bytes, header: Header) -> None:
    if len(content) % 65:
        raise Unusual  # of 16 bits, or broken
    for at in range(0, len(content), 65):
        if content[at] > 3:
            raise Unusual
        header.quantizers[content[at]] = content[at + 1 : at + 65]


def _read_codes(content: bytes, header: Header) -> None:
    while content:
        place, counts = content[0], content[1:17]
        symbols = content[17 : 17 + sum(counts)]
        if place & 0xEC or len(symbols) != sum(counts) or len(symbols) > 256:
            raise Unusual
        header.codes[place] = (place < 0x10, counts, symbols)
        content = content[17 + len(symbols) :]


def _read_frame(content: bytes, header: Header) -> None:
    precision, height, width, number = struct.unpack_from(">BHHB", content)
    if header.components or precision != 8 or number not in (1, 3) or len(content) != 6 + 3 * number or not width * height:
        raise Unusual
    header.width, header.height = width, height
    for name, sampling, quantizer in struct.iter_unpack("BBB", content[6:]):
        header.components.append(Component(name, sampling >> 4, sampling & 15, quantizer))
    first, *others = header.components
    if number == 1:
        first.across = first.down = 1  # whatever it says: a scan of one component has blocks one by one
    elif not {first.across, first.down} <= {1, 2} or any((other.across, other.down) != (1, 1) for other in others):
        raise Unusual


def _read_scan(content: bytes, header: Header) -> None:
    components = header.components
    names = [component.name for component in components]
    is_ycbcr = header.adobe == YCBCR if header.adobe is not None else header.is_jfif or names == [1, 2, 3]
    if not components or content[0] != len(components) or len(content) != 4 + 2 * len(components) or content[-3:] != b"\0\x3f\0":
        raise Unusual
    if list(content[1:-3:2]) != names or len(set(names)) < len(names) or (len(names) == 3 and not is_ycbcr):
        raise Unusual
    for component, codes in zip(components, content[2:-3:2], strict=True):
        component.codes = (codes >> 4, 0x10 | (codes & 15))


@lru_cache(maxsize=CODES_KEPT)
def code_row(is_dc: bool, counts: bytes, symbols: bytes) -> np.ndarray:
    """A Huffman code as the kernel reads it.  -> uint16 [kernel.ROW]"""
    row = np.zeros(kernel.ROW, np.uint16)
    numbers, padded = np.frombuffer(b"\0" + counts, np.uint8).astype(np.int64), symbols.ljust(256, b"\0")
    if not kernel.table(numbers, np.frombuffer(padded, np.uint8), is_dc, row):
        raise Unusual
    return row


@lru_cache(maxsize=8)
def kept(eighths: int) -> tuple[np.ndarray, np.ndarray, int]:
    """What a block at so many eighths is made of.

    -> the weight of each frequency in each sample, float32 [N, N or N + 1]; the place of each coefficient of the zigzag, from the
    last one on, int64 [64]; what the kernel's `left` is before the first that is not kept
    """
    weights = np.zeros((eighths, eighths + eighths % 2), np.float32)
    weights[:, :eighths] = fingerprints.area_means(8, eighths) @ fingerprints.dct_basis(8, eighths).T
    down, across = kernel.ZIGZAG // 8, kernel.ZIGZAG % 8
    needed = (down < eighths) & (across < eighths)
    places = np.where(needed, down * eighths + across, eighths**2)
    return weights, places[::-1], (kernel.BLOCK - int(needed.nonzero()[0][-1])) * kernel.COEFFICIENT


@lru_cache(maxsize=CODES_KEPT)
def code_rows(*codes: tuple[bool, bytes, bytes]) -> np.ndarray:
    """The rows of Huffman codes, one behind the other."""
    return np.concatenate([code_row(*code) for code in codes])


@lru_cache(maxsize=CODES_KEPT)
def factors(quantizer: bytes, eighths: int) -> np.ndarray:
    """What each kept coefficient is multiplied with.  -> float32 [N * N]"""
    square = np.zeros(kernel.BLOCK, np.float32)
    square[kernel.ZIGZAG] = list(quantizer)
    return square.reshape(8, 8)[:eighths, :eighths].ravel()


def plane_for(component: Component, header: Header, shape: tuple[int, int], size: tuple[int, int]) -> Plane:
    """The plane of a component, not yet drawn, at the smallest eighths that are not below `size`."""
    most_across, most_down = header.components[0].across, header.components[0].down
    width, height = header.width * component.across / most_across, header.height * component.down / most_down
    fine = (n for n in range(1, 8) if math.ceil(width * n / 8) >= size[0] and math.ceil(height * n / 8) >= size[1])
    eighths = next(fine, 8)
    samples = np.empty((eighths, shape[0] * component.down * eighths, shape[1] * component.across), np.uint8)
    return Plane(eighths, (width * eighths / 8, height * eighths / 8), samples)


def unstuffed(data: bytes, header: Header, num_mcus: int) -> tuple[np.ndarray, np.ndarray]:
    """The scan without what is not its own, and where its stretches end. Unusual."""
    most_restarts = num_mcus // header.interval if header.interval else 0
    stream, ends = np.empty(len(data) - header.scan + kernel.SLACK, np.uint8), np.empty(most_restarts + 2, np.int64)
    length, restarts = kernel.unstuff(np.frombuffer(data, np.uint8), header.scan, stream, ends)
    if length < 0:
        raise Unusual
    ends[restarts] = length
    return stream, ends[: restarts + 1]


def draw(data: bytes, header: Header, sizes: Sequence[tuple[int, int]]) -> list[Plane]:
    """The planes of all components, each at no less than its size. Unusual."""
    components = header.components
    shape = (-(-header.height // (8 * components[0].down)), -(-header.width // (8 * components[0].across)))
    planes = [plane_for(one, header, shape, size) for one, size in zip(components, sizes, strict=True)]
    if planes[0].eighths > MAX_EIGHTHS:
        raise Unusual
    stream, ends = unstuffed(data, header, shape[0] * shape[1])
    keys = sorted({key for component in components for key in component.codes})
    layout, lines, places, start = [], [], [], 0
    for number, (component, plane) in enumerate(zip(components, planes, strict=True)):
        blocks = plane.samples.shape[2]
        rows = [keys.index(key) * kernel.ROW for key in component.codes]
        for line in range(component.down):
            layout += [(start + block, component.across, number, *rows) for block in range(component.across)]
            lines.append((start, number, component.down, line))
            start += (plane.eighths**2 + 1) * blocks
        places.append(kept(plane.eighths)[1] * blocks)
    most = max(plane.eighths**2 * plane.samples.shape[2] for plane in planes)
    quantizers = [header.quantizers[component.quantizer] for component in components]
    is_whole = kernel.scan(
        stream,
        ends,
        header.interval,
        shape,
        code_rows(*(header.codes[key] for key in keys)),
        np.array(layout, np.uint64),
        np.array(lines),
        np.array([kept(plane.eighths)[2] for plane in planes]),
        np.concatenate(places).astype(np.uint64),
        triple([factors(quantizer, plane.eighths) for quantizer, plane in zip(quantizers, planes, strict=True)]),
        triple([kept(plane.eighths)[0] for plane in planes]),
        triple([plane.samples for plane in planes]),
        (np.empty(start, np.int16), np.empty(most, np.float32), np.empty(most, np.float32), np.empty(len(planes), np.int64)),
    )
    if not is_whole:
        raise Unusual
    return planes


def triple(arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """As many as the kernel is compiled for; of a gray picture the others are not looked at."""
    return (*arrays, *arrays[:1], *arrays[:1])[:3]


def planes(data: bytes, header: Header, size: tuple[int, int]) -> Planes | None:
    """The picture at `size`, which is smaller than it is.  -> Y [H, W], Cb and Cr [half of H, half of W], rounded up"""
    half = (-(-size[0] // 2), -(-size[1] // 2))
    if min(size) < MIN_SIDE:
        return None
    try:
        y, *colors = draw(data, header, (size, half, half)[: len(header.components)])
    except (Unusual, KeyError):  # KeyError: a table that is not there
        return None
    # A sample of color stands for two pixels: where these are odd in number, the last one reaches half beyond the picture.
    covered = (size[0] / 2, size[1] / 2)
    fitted = [scaling.fit(plane.pixels(), plane.extent, half, covered) for plane in colors]
    cb, cr = fitted or [np.full(half[::-1], NO_COLOR, np.uint8)] * 2
    return scaling.fit(y.pixels(), y.extent, size), cb, cr


def rgb(planes: Planes) -> np.ndarray:
    """The colors of each pixel.  -> uint8 [H, W, 3]"""
    y, cb, cr = planes
    height, width = y.shape
    whole = (2 * cb.shape[1], 2 * cb.shape[0])
    cb, cr = (cv2.resize(plane, whole, interpolation=cv2.INTER_LINEAR)[:height, :width] for plane in (cb, cr))
    return cv2.cvtColor(cv2.merge([y, cr, cb]), cv2.COLOR_YCrCb2RGB)
