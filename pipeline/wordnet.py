"""WordNet: the texts of its synsets, from its own database files.

in      data.noun, data.verb, data.adj, data.adv
out     the lemmas of each synset in the order of the file, spaces for underscores
law     a line that is no synset raises InputError: these files are written by one program
source  wndb(5WN), wninput(5WN): `offset lex_filenum ss_type w_cnt word lex_id [word lex_id ...] ...`, w_cnt in hexadecimal
"""

import re
from collections.abc import Iterable, Iterator

from pipeline.errors import InputError

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
SYNTACTIC_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # of adjectives: where they may stand
SYNSET = re.compile(r"\d{8} \d\d [nvasr] ([0-9a-f]{2}) ")


def synsets(lines: Iterable[str], name: str) -> Iterator[list[str]]:
    """The lemmas of each synset of one file; `name` is what errors call it."""
    for number, line in enumerate(lines, 1):
        if line.startswith("  ") or not line.strip():  # the licence, at the top
            continue
        start = SYNSET.match(line)
        words = line[start.end() :].split(" ", 2 * int(start[1], 16))[:-1:2] if start else []
        if start is None or len(words) != int(start[1], 16) or not all(words):
            raise InputError(f"queries: {name}, line {number} is no synset of WordNet's database: {line[:40]!r}")
        yield [SYNTACTIC_MARKER.sub("", word).replace("_", " ") for word in words]
