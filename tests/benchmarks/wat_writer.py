"""Write a WAT file in Common Crawl's format from HTML pages and translated messages that are on the machine.

pages   HTML files below FOLDERS (documentation, packages), chosen by a hash: their titles, metas, scripts and links are the
        records'. Documentation has few pictures, the web has many: images are added until a page has about 25, 9 of them
        with an `alt`, as cc2dataset counted in a real WAT (1.14 million images, 405,000 of them with a text, in one file of
        about 45,000 pages); `own_images` leaves them out
texts   of the added images: pieces of the page's own texts; on every second page instead messages of one language of the
        translations (module translations), since more than half of the web is not English; file names, single words
shape   three records a page (request, response, metadata), each a gzip member; keys, their order and the headers are those
        of ia-web-commons, as in Common Crawl's own sample of a request and in its documentation of the format
law     a function of the machine's files and (num_pages, seed)
"""

import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from selectolax.lexbor import LexborHTMLParser

from pipeline.hashing import string_hash
from tests.benchmarks.translations import messages

FOLDERS = ("/usr/share/doc", "/usr/share/gtk-doc", "/usr/lib", "/usr/local", "/opt", sys.prefix, str(Path.home()))
LANGUAGES = "de fr es it pt_BR nl pl ru ja zh_CN tr cs sv vi uk hu ko fi da ro el id".split()  # noqa: SIM905
MIN_PAGE_BYTES, MAX_PAGE_BYTES = 4_000, 300_000
PATHS = {
    "a": ("A@/href", "href"),
    "img": ("IMG@/src", "src"),
    "iframe": ("IFRAME@/src", "src"),
    "form": ("FORM@/action", "action"),
}
HEADER = (
    "WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-31T01:17:49Z\r\n"
    "WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\n"
    "WARC-Refers-To: <urn:uuid:00000000-0000-4000-9000-{number:012d}>\r\nContent-Type: application/json\r\n"
    "Content-Length: {size}\r\nWARC-Block-Digest: sha1:4RUZFQLEBLD46HZUN3VDGDW5FRMAHDDM\r\n\r\n"
)


def html_files(num_pages: int) -> list[str]:
    """The paths of HTML files of the machine in an order of chance; at most `num_pages`, links to folders not followed."""
    found = set()
    for folder in FOLDERS:
        for path, _, names in os.walk(folder):
            found.update(os.path.join(path, name) for name in names if name.endswith((".html", ".htm")))
    chosen = []
    for path in sorted(found, key=string_hash):
        if len(chosen) == num_pages:
            break
        if os.path.isfile(path) and MIN_PAGE_BYTES <= os.path.getsize(path) <= MAX_PAGE_BYTES:
            chosen.append(path)
    return chosen


def record(url: str, number: int, envelope: dict[str, object]) -> bytes:
    """One gzip member with one metadata record."""
    inflated = {
        "Deflate-Length": "423",
        "Header-Length": "10",
        "Footer-Length": "8",
        "Inflated-CRC": "1106529533",
        "Inflated-Length": "626",
    }
    container = {"Filename": "bench.warc.gz", "Compressed": True, "Offset": str(number), "Gzip-Metadata": inflated}
    body = orjson.dumps({"Container": container, "Envelope": envelope}).replace(b"</", b"<\\/")
    return gzip.compress(HEADER.format(url=url, number=number, size=len(body)).encode() + body + b"\r\n\r\n", 6, mtime=0)


def html_metadata(page: str) -> dict[str, Any]:
    """HTML-Metadata of a page: Head and Links, as ia-web-commons writes them."""
    document = LexborHTMLParser(page)
    title = document.css_first("title")
    head: dict[str, Any] = {"Title": title.text() if title else ""}
    head["Metas"] = [{name: value or "" for name, value in node.attributes.items()} for node in document.css("meta")]
    head["Link"] = [
        {"path": "LINK@/href", "url": node.attributes.get("href") or "", "rel": node.attributes.get("rel") or ""}
        for node in document.css("link")
    ]
    head["Scripts"] = [{"path": "SCRIPT@/src", "url": node.attributes.get("src") or ""} for node in document.css("script[src]")]
    found = []
    for node in document.css("a, img, iframe, form"):
        path, name = PATHS[node.tag or "a"]
        link = {"path": path, "url": node.attributes.get(name) or ""}
        if node.tag == "a" and (text := " ".join(node.text().split())[:200]):
            link["text"] = text
        link.update({key: value for key in ("alt", "title", "rel", "target") if (value := node.attributes.get(key))})
        found.append(link)
    return {"Head": head, "Links": found}


def image_text(rng: np.random.Generator, texts: list[str]) -> str:
    """A text as found in `alt`: mostly a message or piece of the page; sometimes a file name, an entity, one word."""
    kind = rng.random()
    if kind < 0.08:
        return f"IMG_{rng.integers(10_000):04d}.jpg"
    if kind < 0.14:
        return "logo"
    text = texts[rng.integers(len(texts))]
    return f"{text} &amp; more" if kind < 0.2 else text


def add_images(rng: np.random.Generator, links: list[dict[str, str]], texts: list[str], host: str) -> None:
    """Put images between the links until the page has 5 to 45."""
    for _ in range(int(rng.integers(5, 45)) - sum(link["path"] == "IMG@/src" for link in links)):
        number = rng.integers(10**9)
        url = f"https://cdn.{host}/media/{number}.jpg?w=640" if rng.random() < 0.6 else f"/wp-content/uploads/{number}.png"
        image = {"path": "IMG@/src", "url": url}
        if rng.random() < 0.36:
            image["alt"] = image_text(rng, texts)
        links.insert(int(rng.integers(len(links) + 1)), image)


def envelopes(page: str, url: str, host: str, html: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The envelopes of the three records of a page."""
    headers = {
        "Date": "Sat, 18 May 2024 01:58:10 GMT",
        "Content-Type": "text/html; charset=UTF-8",
        "Cache-Control": "private, max-age=0",
        "Vary": "Accept-Encoding",
    }
    request = {
        "Request-Message": {"Method": "GET", "Path": "/", "Version": "HTTP/1.1"},
        "Headers-Length": "263",
        "Headers": {"User-Agent": "CCBot/2.0 (https://commoncrawl.org/faq/)", "Accept-Encoding": "br,gzip", "Host": host},
    }
    response = {
        "Response-Message": {"Version": "HTTP/1.1", "Status": "200", "Reason": "OK"},
        "Headers": headers,
        "HTML-Metadata": html,
        "Entity-Length": str(len(page)),
    }
    metadata = {"Metadata-Records": [{"Name": "fetchTimeMs", "Value": "120"}]}
    payloads = (
        ("request", "HTTP-Request-Metadata", request),
        ("response", "HTTP-Response-Metadata", response),
        ("metadata", "WARC-Metadata-Metadata", metadata),
    )
    for kind, name, content in payloads:
        warc = {
            "WARC-Type": kind,
            "WARC-Date": "2024-05-18T01:58:10Z",
            "Content-Length": "265",
            "WARC-Record-ID": "<urn:uuid:292f457d-203c-42f2-a1b5-69a4dabefd4f>",
            "WARC-IP-Address": "208.80.154.224",
            "WARC-Target-URI": url,
        }
        payload = {"Actual-Content-Type": f"application/http; msgtype={kind}", name: content, "Actual-Content-Length": "265"}
        yield {"Payload-Metadata": payload, "Format": "WARC/1.0", "WARC-Header-Length": "357", "WARC-Header-Metadata": warc}


def write_wat(path: str, *, num_pages: int, seed: int = 0, own_images: bool = False) -> int:
    """Write a WAT of at most `num_pages` pages of the machine; returns how many there were."""
    rng = np.random.default_rng(seed)
    other = [found for language in LANGUAGES if len(found := list(messages(language))) > 100]
    files = html_files(num_pages)
    with open(path, "wb") as file:
        for number, name in enumerate(files):
            page = Path(name).read_bytes().decode("utf-8", "replace")
            host = f"www.site{rng.integers(10**5)}.com"
            url = f"https://{host}/{'/'.join(part for part in name.split('/')[-3:])}".replace(" ", "%20")
            html = html_metadata(page)
            texts = [text for link in html["Links"] if 8 <= len(text := link.get("text", "")) <= 120]
            if other and (rng.random() < 0.5 or not texts):
                texts = other[rng.integers(len(other))]
            if not own_images:
                add_images(rng, html["Links"], texts or ["red bicycle"], host)
            for step, envelope in enumerate(envelopes(page, url, host, html)):
                file.write(record(url, 3 * number + step, envelope))
    return len(files)
