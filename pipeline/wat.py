"""WAT: the image links that Common Crawl has cut out of pages.

in      the JSON of metadata records, hostile
out     each page's base and its image links, numbered in the order of the record
drops   none here; a record that is JSON but not what a WAT record should be has no links, one that is no JSON is None
law     never raises. Only entries whose path starts with "IMG@/" are image links. URLs stand in a WAT as in the HTML,
        entities and all; here they are resolved. `find` of many records is `links` of each
cost    records without the bytes IMG@ are not parsed; the others by compiled code (wat_kernel), which leaves what is unusual to
        a full parser
source  ia-web-commons, the writer of WAT files: Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import html
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import strings, urls, wat_kernel
from pipeline.pages import Link

MARK = b"IMG@"
ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);")
HAS_ENTITY = "&(?:#|[A-Za-z])[A-Za-z0-9]*;"  # for RE2: whatever ENTITY matches, and a little more
HTML_PATH = ("Envelope", "Payload-Metadata", "HTTP-Response-Metadata")
MIN_LINK_BYTES = 16  # {"path":"IMG@/"}
MISSING = object()


class Found(NamedTuple):
    """The image links of many records, in order.

    record  [links] the record's number
    pieces  [3 * links] URL, alt, title of each link; empty where there is none
    bases   [records] `<base href>`, or None
    readable  [records] False for one that is no JSON; it has one link, of three empty pieces
    """

    record: np.ndarray
    pieces: pa.StringArray
    bases: list[str | None]
    readable: np.ndarray


def _load(record: bytes) -> Any:
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError:
        pass
    try:  # orjson refuses half surrogates and broken UTF-8, which the web is full of
        return json.loads(record.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return MISSING


def _child(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _unescaped(url: str) -> str:
    """The URL without entities; one without its semicolon may be a parameter (`&copy=1`) and stays."""
    return ENTITY.sub(lambda match: html.unescape(match[0]), url) if "&" in url else url


def links(record: bytes) -> tuple[str | None, list[Link]] | None:
    """The page's `<base href>` (None: none) and its image links, by a full parser; None: not JSON."""
    if MARK not in record:
        return None, []
    response = _load(record)
    if response is MISSING:
        return None
    for name in HTML_PATH:
        response = _child(response, name)
    if str(_child(_child(response, "Response-Message"), "Status") or "200") != "200":
        return None, []
    metadata = _child(response, "HTML-Metadata")
    entries = _child(metadata, "Links")
    base = _child(_child(metadata, "Head"), "Base")
    return _unescaped(base) if isinstance(base, str) else None, _image_links(entries if isinstance(entries, list) else [])


def _image_url(url: str, *, is_srcset: bool) -> str:
    url = _unescaped(url)
    return urls.largest(url) or "" if is_srcset else url


def _image_links(entries: list[Any]) -> list[Link]:
    found = []
    for entry in entries:
        path = _child(entry, "path")
        if not isinstance(path, str) or not path.startswith("IMG@/"):
            continue
        url = entry.get("url")
        url = _image_url(url if isinstance(url, str) else "", is_srcset=path.endswith("srcset"))
        texts = [(name, entry[name]) for name in ("alt", "title") if isinstance(entry.get(name), str)]
        found.append(Link(url, texts))
    return found


def _scan(blocks: Sequence[bytes]) -> tuple[np.ndarray, pa.StringArray, list[str | None], np.ndarray]:
    """What the compiled code understands: (record of each link, pieces, bases, numbers of the records that it does not)."""
    raw = b"".join(blocks)
    data, starts = np.frombuffer(raw, np.uint8), np.cumsum([0, *map(len, blocks)])
    most = len(data) // MIN_LINK_BYTES + 1
    out, offsets = np.empty(len(data), np.uint8), np.empty(3 * most + 1, np.int64)
    records, spans = np.empty(most, np.int64), np.empty((len(blocks), 2), np.int64)
    understood = np.empty(len(blocks), np.bool_)
    num_links, size = wat_kernel.scan(data, starts, out, offsets, records, spans, understood)
    pieces = strings.from_views(out[:size].copy(), offsets[: 3 * num_links + 1])
    bases: list[str | None] = [None] * len(blocks)
    for i in np.flatnonzero(understood & (spans[:, 0] >= 0)).tolist():
        base = _load(raw[spans[i, 0] : spans[i, 1]])
        bases[i] = _unescaped(base) if isinstance(base, str) else None
    record, is_srcset = records[:num_links] >> 1, (records[:num_links] & 1).astype(np.bool_)
    has_entity = pc.match_substring_regex(pieces, HAS_ENTITY).to_numpy(zero_copy_only=False)[::3]
    places = np.flatnonzero(is_srcset | has_entity)
    urls_there = zip(strings.at(pieces, 3 * places), is_srcset[places].tolist(), strict=True)
    pieces = strings.put(pieces, 3 * places, [_image_url(url, is_srcset=srcset) for url, srcset in urls_there])
    return record, pieces, bases, np.flatnonzero(~understood)


def find(blocks: Sequence[bytes]) -> Found:
    """The image links of records that hold MARK."""
    record, pieces, bases, unusual = _scan(blocks)
    readable = np.ones(len(blocks), np.bool_)
    records, tables = [record], [pieces]
    for number in unusual.tolist():
        base_and_links = links(blocks[number])
        if base_and_links is None:
            readable[number] = False
        bases[number], found = base_and_links or (None, [Link("", [])])
        texts = [dict(link.texts) for link in found]
        values = [
            value
            for link, text in zip(found, texts, strict=True)
            for value in (link.url, text.get("alt", ""), text.get("title", ""))
        ]
        records.append(np.full(len(found), number))
        tables.append(pa.array(map(strings.valid, values), pa.string()))
    if len(tables) == 1:
        return Found(record, pieces, bases, readable)
    record = np.concatenate(records)
    order = np.argsort(record, kind="stable")
    places = (3 * order[:, None] + np.arange(3)).ravel()
    return Found(record[order], pa.concat_arrays(tables).take(pa.array(places)), bases, readable)
