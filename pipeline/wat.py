"""WAT: the image links that Common Crawl has cut out of a page.

in      the JSON of one metadata record, hostile
out     the page's base and its image links, numbered in the order of the record
drops   none here; a record that is not what a WAT record should be has no links
law     never raises. Only entries whose path starts with "IMG@/" are image links. URLs stand in a WAT as in the HTML,
        entities and all; here they are resolved
cost    records without the bytes IMG@ are not parsed
source  ia-web-commons, the writer of WAT files: Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata
"""

import html
import json
import re
from typing import Any

import orjson

from pipeline import urls
from pipeline.pages import Link

MARK = b"IMG@"
ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);")
HTML_PATH = ("Envelope", "Payload-Metadata", "HTTP-Response-Metadata")


def _load(record: bytes) -> Any:
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError:
        pass
    try:  # orjson refuses half surrogates and broken UTF-8, which the web is full of
        return json.loads(record.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _child(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _unescaped(url: str) -> str:
    """The URL without entities; one without its semicolon may be a parameter (`&copy=1`) and stays."""
    return ENTITY.sub(lambda match: html.unescape(match[0]), url) if "&" in url else url


def links(record: bytes) -> tuple[str | None, list[Link]]:
    """The page's `<base href>` (None: none) and its image links."""
    if MARK not in record:
        return None, []
    response = _load(record)
    for name in HTML_PATH:
        response = _child(response, name)
    if str(_child(_child(response, "Response-Message"), "Status") or "200") != "200":
        return None, []
    metadata = _child(response, "HTML-Metadata")
    entries = _child(metadata, "Links")
    base = _child(_child(metadata, "Head"), "Base")
    return _unescaped(base) if isinstance(base, str) else None, _image_links(entries if isinstance(entries, list) else [])


def _image_links(entries: list[Any]) -> list[Link]:
    found = []
    for entry in entries:
        path = _child(entry, "path")
        if not isinstance(path, str) or not path.startswith("IMG@/"):
            continue
        url = entry.get("url")
        url = _unescaped(url) if isinstance(url, str) else ""
        if path.endswith("srcset"):
            url = urls.largest(url) or ""
        texts = [(name, entry[name]) for name in ("alt", "title") if isinstance(entry.get(name), str)]
        found.append(Link(url, texts))
    return found
