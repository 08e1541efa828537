"""URLs: one canonical form, and what srcset offers.

in      URLs as pages write them
out     WHATWG form, http or https, no fragment; None where there is none
law     canonical(canonical(url)) == canonical(url); canonical_all of a column is canonical of each of its URLs
cost    linear in the length, also for hostile srcset values; a plain URL is copied, ada parses the others
source  WHATWG URL (ada); HTML, "srcset attributes" (4.8.4.2.1)
"""

import re
from collections.abc import Sequence

import ada_url
import numpy as np
import pyarrow as pa

from pipeline import strings, url_kernel

MAX_URL_CHARS = 8192  # a longer one is no URL of a picture: mostly a picture itself, as data:
CANDIDATE_URL = re.compile(r"[\s,]*([^\s]+)")
DESCRIPTORS = re.compile(r"[^,(]*(?:\([^)]*\)?[^,(]*)*")  # up to the next comma that is not in parentheses


def canonical(url: str, base: str | None = None) -> str | None:
    """The absolute http(s) URL without its fragment, or None: empty, unparseable, too long or of another scheme."""
    if len(url) > MAX_URL_CHARS or not url.strip():
        return None
    try:
        absolute = ada_url.join_url(base, url) if base else ada_url.normalize_url(url)
    except ValueError:
        return None
    if not absolute.startswith(("http://", "https://")) or len(absolute) > MAX_URL_CHARS:
        return None
    return absolute.partition("#")[0]


def base_url(page_url: str, base_href: str | None) -> str:
    """What relative URLs of the page start from: its `<base href>` where that is http(s), else the page."""
    return (canonical(base_href, page_url) if base_href else None) or page_url


def _cuts(base: str | None) -> tuple[int, int, int, int]:
    """0, and where scheme, origin and folder of a canonical URL end; -1 where nothing can be joined to it."""
    if base is None:
        return -1, -1, -1, -1
    scheme = base.index(":") + 1
    origin = base.index("/", scheme + 2)
    return 0, scheme, origin, base.partition("?")[0].rindex("/") + 1


def canonical_all(urls: pa.StringArray, bases: Sequence[str], base_of: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
    """`canonical` of each URL with its base, `bases[base_of[i]]`.  [n], [n] -> [n] string, [n] bool

    Where the second is False there is no canonical URL, and the first holds the first MAX_URL_CHARS of what was given.
    """
    known_bases = [canonical(base) for base in bases]
    base_data, base_offsets = strings.views(pa.array([base or "" for base in known_bases], pa.string()))
    cuts = np.array([_cuts(base) for base in known_bases], np.int64).reshape(-1, 4)
    data, offsets = strings.views(urls)
    room = len(data) + int((cuts[base_of, 3]).clip(0).sum())
    out, ends, others = np.empty(room, np.uint8), np.zeros(len(urls) + 1, np.int64), np.empty(len(urls), np.int64)
    num_others = url_kernel.join(data, offsets, base_of, base_data, base_offsets, cuts, MAX_URL_CHARS, out, ends, others)
    places = others[:num_others]
    raw: list[tuple[str, int]] = list(zip(strings.at(urls, places), base_of[places].tolist(), strict=True))
    known = {key: canonical(key[0], bases[key[1]]) for key in set(raw)}
    is_good = np.ones(len(urls), np.bool_)
    is_good[places] = [known[key] is not None for key in raw]
    found = [known[key] or key[0][:MAX_URL_CHARS] for key in raw]
    return strings.put(strings.from_views(out, ends), places, found), is_good


def _sizes(descriptors: list[str]) -> tuple[float, float] | None:
    """(width, density) of a candidate, 0 for the one not given; None where a descriptor is not understood."""
    width, density = 0.0, 0.0
    for descriptor in descriptors:
        number, unit = descriptor[:-1], descriptor[-1:]
        try:
            size = float(number)
        except ValueError:
            return None
        if not 0 < size < float("inf") or unit not in ("w", "x", "h"):
            return None
        if unit == "w":
            width = size
        elif unit == "x":
            density = size
    return width, density or 1.0


def largest(srcset: str) -> str | None:
    """The URL of the largest candidate: by width (w) where one is given, else by density (x); the first of equals.

    Inline pictures (data:) are placeholders of lazy pages and do not count.
    """
    best: tuple[float, float] = (0.0, 0.0)
    found: str | None = None
    position = 0
    while match := CANDIDATE_URL.match(srcset, position):
        url, position = match[1], match.end()
        descriptors: list[str] = []
        if url.endswith(","):
            url = url.rstrip(",")
        elif rest := DESCRIPTORS.match(srcset, position):
            descriptors, position = rest[0].split(), rest.end()
        sizes = _sizes(descriptors)
        if url and sizes and sizes > best and url[:5].lower() != "data:":
            best, found = sizes, url
    return found
