"""Labelled short texts: the translated messages of programs (gettext .mo files) below LOCALES.

out     for each language its one-line messages that differ from the English source, without formats and markup
law     a function of the machine's files; the order is a hash's, so that a prefix is a fair sample
source  GNU gettext manual, "The Format of GNU MO Files"
"""

import glob
import re
import struct
from pathlib import Path

from pipeline.hashing import string_hash

LOCALES = "/usr/share/locale"
CHARSET = re.compile(rb"charset=([\w-]+)")
UNWANTED = set("\n\0%_{}<>|=\\&")  # more than one line, plural forms, formats, mnemonics, markup, options


def read_catalog(data: bytes) -> list[tuple[str, str]]:
    """(source, translation) of every message of a .mo file that can be decoded."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    _, _, count, sources, targets = struct.unpack_from(f"{order}5I", data)

    def piece(table: int, number: int) -> bytes:
        length, start = struct.unpack_from(f"{order}2I", data, table + 8 * number)
        return data[start : start + length]

    header = next((piece(targets, i) for i in range(count) if not piece(sources, i)), b"")
    charset = CHARSET.search(header)
    encoding = charset[1].decode() if charset else "utf-8"
    try:
        return [(piece(sources, i).decode(encoding), piece(targets, i).decode(encoding)) for i in range(count)]
    except (UnicodeDecodeError, LookupError):
        return []


def messages(language: str) -> dict[str, str]:
    """The translated messages of a language of 8 to 120 characters, each with its English source."""
    found: dict[str, str] = {}
    for path in sorted(glob.glob(f"{LOCALES}/{language}/LC_MESSAGES/*.mo")):
        for source, text in read_catalog(Path(path).read_bytes()):
            if source and source != text and 8 <= len(text) <= 120 and not UNWANTED & set(source + text):
                found[text] = source
    return {text: found[text] for text in sorted(found, key=string_hash)}
