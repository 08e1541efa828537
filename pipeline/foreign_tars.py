"""Tars and JPEGs that others wrote, read as what they are: hostile bytes.

law     nothing is extracted: members are read by their place, regular ones only, each at most max_bytes long, at most
        max_members of them; a name is compared with the keys that are wanted and used for nothing else
law     a tar that is torn or is none gives the members before the place where it breaks
"""

from collections.abc import Iterator
from typing import IO, NamedTuple

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
