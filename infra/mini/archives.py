"""Archives: pages as WARC files (request and response) and as WAT files (metadata), in the standard's format.

in      pages
out     archives/*.warc.gz and archives/*.warc.wat.gz, written with warcio; for each page its archive and record offset
law     the same bytes every time: record ids and dates are functions of the page
"""

import io
import json
import os
import uuid
from typing import BinaryIO

import numpy as np
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from infra.mini.pages import Page, page_html, page_metadata
from infra.mini.plan import Plan

DATE = "2026-01-01T00:00:00Z"
SPACE = uuid.UUID("3f0a3f3e-1f2d-4f5e-9c55-6d1f6e9a0001")  # of the record ids
NOISE = (  # responses that are no pages: the crawl passes over them
    ("pics/in-archive.png", "image/png", b"\x89PNG\r\n\x1a\n not all of it"),
    ("notes.txt", "text/plain", b'<img src="/pics/text.png" alt="a picture in plain text is none">'),
    ("data.json", "application/json", b'{"img": "/pics/json.png", "alt": "a picture in JSON is none"}'),
)


class Archive:
    """One archive file that is being written."""

    def __init__(self, path: str, stream: BinaryIO):
        self.name, self.stream = os.path.basename(path), stream
        self.writer = WARCWriter(stream, gzip=True)
        info = b"software: infra.mini\r\nformat: WARC File Format 1.0\r\n"
        self.record("warcinfo", "", info, "application/warc-fields")

    def record(self, kind: str, url: str, payload: bytes, media: str = "", http: StatusAndHeaders | None = None) -> int:
        """Write a record and return its offset in the file, in bytes."""
        offset = self.stream.tell()
        headers = {
            "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(SPACE, f'{self.name}/{offset}')}>",
            "WARC-Date": DATE,
        }
        if kind == "warcinfo":
            headers["WARC-Filename"] = self.name
        record = self.writer.create_warc_record(
            url, kind, payload=io.BytesIO(payload), length=len(payload), warc_content_type=media, warc_headers_dict=headers,
            http_headers=http,
        )  # fmt: skip
        self.writer.write_record(record)
        return offset

    def exchange(self, url: str, media: str, body: bytes) -> int:
        """Write request and response of a URL; the response's offset."""
        _, _, host, path = url.split("/", 3)
        request = StatusAndHeaders(f"GET /{path} HTTP/1.1", [("Host", host), ("User-Agent", "mini/1.0")], is_http_request=True)
        self.record("request", url, b"", http=request)
        answer = StatusAndHeaders("200 OK", [("Content-Type", media), ("Content-Length", str(len(body)))], protocol="HTTP/1.1")
        return self.record("response", url, body, http=answer)


def envelope(page: Page, metadata: dict[str, object], length: int) -> bytes:
    """The JSON of a WAT's metadata record."""
    response = {
        "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
        "Headers": {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(length)},
        "Headers-Length": "80",
        "HTML-Metadata": metadata,
    }
    media = "application/http; msgtype=response"
    warc = {"WARC-Type": "response", "WARC-Target-URI": page.url, "WARC-Date": DATE, "Content-Type": media}
    payload = {"Actual-Content-Type": media, "HTTP-Response-Metadata": response}
    value = {
        "Container": {"Filename": "mini.warc.gz", "Compressed": True, "Offset": "0"},
        "Envelope": {"Format": "WARC", "WARC-Header-Metadata": warc, "Payload-Metadata": payload},
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def request_envelope(page: Page) -> bytes:
    """The metadata of the page's request: no links in it."""
    request = {"Request-Message": {"Method": "GET", "Path": "/", "Version": "HTTP/1.1"}}
    payload = {"Actual-Content-Type": "application/http; msgtype=request", "HTTP-Request-Metadata": request}
    warc = {"WARC-Type": "request", "WARC-Target-URI": page.url}
    return json.dumps({"Envelope": {"WARC-Header-Metadata": warc, "Payload-Metadata": payload}}).encode()


def write(plan: Plan, pages: list[Page], folder: str) -> list[tuple[str, int]]:
    """Write all archives; for each page the archive's name and the offset of the record that holds its links."""
    os.makedirs(folder, exist_ok=True)
    counts = {"warc": 4, "wat": 3} if plan.scale > 0.2 else {"warc": 2, "wat": 2}
    places: list[tuple[str, int]] = [("", 0)] * len(pages)
    for kind, count in counts.items():
        mine = [i for i, page in enumerate(pages) if page.archive == kind]
        for number in range(count):
            path = os.path.join(folder, f"mini-{number:05d}.warc.{'wat.' if kind == 'wat' else ''}gz")
            with open(path, "wb") as stream:
                archive = Archive(path, stream)
                for i in mine[number::count]:
                    places[i] = (archive.name, _page(archive, pages[i], plan.random))
    return places


def _page(archive: Archive, page: Page, chance: np.random.Generator) -> int:
    if page.archive == "wat":
        archive.record("metadata", page.url, request_envelope(page), "application/json")
        return archive.record("metadata", page.url, envelope(page, page_metadata(page, chance), 5000), "application/json")
    if chance.random() < 0.05:
        name, media, body = NOISE[chance.integers(len(NOISE))]
        archive.exchange(f"{page.url.rsplit('/', 2)[0]}/{name}", media, body)
    body, media = page_html(page, chance)
    return archive.exchange(page.url, media, body)
