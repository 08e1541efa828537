"""A picture as it is stored, the reasons why there is none, and how a decoding process tells either.

in      a Picture or a reason, in the decoding process
out     the same, in the process that holds the connections: no decoder and no library of pictures is loaded there
law     what is told is read as numbers and bytes of fixed places: it may be in the hands of whoever made the file
"""

import mmap
import struct
from dataclasses import dataclass

NOT_AN_IMAGE = "not_an_image"
BOMB = "bomb"
TOO_SMALL = "too_small"
ASPECT = "aspect"
DECODE = "decode"
DROPS = (NOT_AN_IMAGE, BOMB, TOO_SMALL, ASPECT, DECODE)
MEDIA_TYPES = {  # by Pillow's name of the format
    "JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp", "AVIF": "image/avif",
}  # fmt: skip

READY = b"ready"
REQUEST = struct.Struct("<Q")  # bytes of the file
# reason (0: a picture, else its place in DROPS + 1), media type (place in KINDS); bytes of the stored picture; width, height, as
# served; phash, sha256, colors
REPLY = struct.Struct("<BBQ4IQ32s48s")
KINDS = tuple(MEDIA_TYPES.values())


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


def pack(result: Picture | str) -> bytes:
    """The REPLY that says `result`; the stored picture itself travels in the shared memory."""
    if isinstance(result, str):
        return REPLY.pack(DROPS.index(result) + 1, 0, 0, 0, 0, 0, 0, 0, b"", b"")
    return REPLY.pack(
        0,
        KINDS.index(result.media_type),
        len(result.image),
        *(result.width, result.height, result.original_width, result.original_height),
        *(result.phash, bytes.fromhex(result.sha256), result.colors),
    )


def unpack(reply: bytes, memory: mmap.mmap, num_bytes: int) -> Picture | str:
    """What a REPLY says of a file of so many bytes. ValueError where no decoder of ours can have said that."""
    reason, kind, length, width, height, original_width, original_height, phash, digest, colors = REPLY.unpack(reply)
    if reason:
        if reason > len(DROPS):
            raise ValueError(f"decoder: expected a reason up to {len(DROPS)}, found {reason}")
        return DROPS[reason - 1]
    if kind >= len(KINDS) or length > len(memory):
        raise ValueError(f"decoder: expected a picture of at most {len(memory)} bytes, found {length} of kind {kind}")
    return Picture(
        image=memory[:length],
        width=width,
        height=height,
        original_width=original_width,
        original_height=original_height,
        original_bytes=num_bytes,
        media_type=KINDS[kind],
        sha256=digest.hex(),
        phash=phash,
        colors=colors,
    )
