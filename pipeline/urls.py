"""URLs: one canonical form, and what srcset offers.

in      URLs as pages write them
out     WHATWG form, http or https, no fragment; None where there is none
law     canonical(canonical(url)) == canonical(url)
cost    linear in the length, also for hostile srcset values
source  WHATWG URL (ada); HTML, "srcset attributes" (4.8.4.2.1)
"""

import re

import ada_url

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
