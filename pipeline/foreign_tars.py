"""Tars and JPEGs that others wrote, read as what they are, hostile bytes, and rows of images made of them.

law     nothing is extracted: members are read by their place, regular ones only, each at most max_bytes long, at most
        max_members of them; a name is compared with the keys that are wanted and used for nothing else
law     a tar that is torn or is none gives the members before the place where it breaks
"""

import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from pipeline import storage
from pipeline.decoders import Decoders
from pipeline.pictures import Picture

NO_MEMBER = "no_member"
IMAGES = ("jpg", "jpeg", "png", "webp")
MEMBERS_PER_ROW = 8  # more members than this is no shard but a flood
SHA256 = re.compile(r"[0-9a-f]{64}")
Row = dict[str, Any]
BLOCK_BYTES = 512
REGULAR = (b"0", b"\0")
CHECKSUM = slice(148, 156)
START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
COMPONENTS = (1, 3)


class Member(NamedTuple):
    """A file in a tar: its key and ending as WebDataset cuts the name, its place and its bytes."""

    key: str
    ending: str
    offset: int
    data: bytes


def octal(field: bytes) -> int | None:
    """The number in a field of a header; None where it is none, or written in another way (as over 8 GiB)."""
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def header(block: bytes) -> tuple[str, int, bytes] | None:
    """Name, size and kind of a member; None where this is no header."""
    found = octal(block[CHECKSUM]) if len(block) == BLOCK_BYTES else None
    size = octal(block[124:136])
    if found is None or size is None or found != sum(block) - sum(block[CHECKSUM]) + 8 * ord(" "):
        return None
    name = block[:100].partition(b"\0")[0]
    return name.decode("utf-8", "replace"), size, block[156:157]


def members(
    file: IO[bytes], wanted: frozenset[str], endings: tuple[str, ...], max_bytes: int, max_members: int
) -> Iterator[Member]:
    """The wanted members of an uncompressed tar (POSIX ustar, or what passes for it), in its order."""
    place = 0
    for _ in range(max_members):
        file.seek(place)
        found = header(file.read(BLOCK_BYTES))
        if found is None:  # the end, or no tar any more
            return
        name, size, kind = found
        key, _, ending = name.removeprefix("./").partition(".")
        if kind in REGULAR and key in wanted and ending.lower() in endings and size <= max_bytes:
            data = file.read(size)
            if len(data) == size:
                yield Member(key, ending.lower(), place + BLOCK_BYTES, data)
        place += BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES


def is_plain_jpeg(data: bytes) -> bool:
    """Whether every reader shows a JPEG alike: gray or three components, no EXIF that might turn it, no Adobe transform."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in STANDALONE:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if marker in START_OF_FRAME:
            return len(body) > 5 and body[0] == 8 and body[5] in COMPONENTS
        if (marker == 0xE1 and body[:4] == b"Exif") or marker == 0xEE or marker == 0xDA or length < 2:
            return False
        place += 2 + length
    return False


async def take_pictures(tar: str, rows: Sequence[Row], decoders: Decoders, max_bytes: int) -> None:
    """Put the pictures of the tar into the rows without a drop reason, by their `foreign_key`, or why there is none."""
    waiting: dict[str, Row] = {}
    for row in rows:
        if not row["drop"]:
            row["drop"] = NO_MEMBER
            waiting.setdefault(row["foreign_key"], row)
    limit = (len(rows) + 2) * MEMBERS_PER_ROW
    async with decoders:
        with storage.open_read(tar) as file:
            for member in members(file, frozenset(waiting), IMAGES, max_bytes, limit):
                row = waiting[member.key]
                if row["drop"] != NO_MEMBER:
                    continue  # a second picture under the same key
                made = await decoders.prepare(member.data)
                row["drop"] = made if isinstance(made, str) else None
                if isinstance(made, Picture):
                    row |= facts(made, member, row) | {"archive": tar, "record_offset": member.offset}


def facts(picture: Picture, member: Member, row: Row) -> Row:
    """IMAGE_FIELDS and the picture itself."""
    digest = row["listed_sha256"] or ""
    sizes = (row["listed_original_width"] or 0, row["listed_original_height"] or 0)
    if not all(0 < side < 2**31 for side in sizes):
        sizes = (picture.original_width, picture.original_height)
    return {
        "image": member.data if is_plain_jpeg(member.data) else picture.image,
        **{"width": picture.width, "height": picture.height, "original_width": sizes[0], "original_height": sizes[1]},
        **{"original_bytes": len(member.data), "media_type": picture.media_type},
        "sha256": digest if SHA256.fullmatch(digest) else picture.sha256,
        **{"phash": picture.phash, "colors": picture.colors},
    }
