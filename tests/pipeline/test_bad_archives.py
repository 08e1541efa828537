"""Hostile archives: one counted reason or one clear error, never a crash, never a silent loss, never the whole memory."""

import gzip
import json
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import archives, crawl, records, schema
from pipeline.config import CrawlConfig
from pipeline.errors import InputError

REAL = Path(__file__).parent.parent / "data" / "commoncrawl"


@pytest.fixture(scope="module")
def worker() -> crawl.Worker:
    return crawl.Worker(CrawlConfig(language=""), {})


def record(block: bytes, *, kind: str = "metadata", length: int | None = None, more: bytes = b"") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://e.org/\r\nContent-Length: "
    return head.encode() + b"%d\r\n" % (len(block) if length is None else length) + more + b"\r\n" + block + b"\r\n\r\n"


def wat_block(links: list[dict[str, str]]) -> bytes:
    response = {"HTML-Metadata": {"Links": links}}
    return json.dumps({"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": response}}}).encode()


def html_block(html: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + headers + b"\r\n" + html


def crawled(worker: crawl.Worker, path: Path, kind: str, data: bytes) -> pa.Table:
    path.write_bytes(data)
    table = worker(pa.table({"archive": [str(path)], "format": [kind], "archive_bytes": [0]}, schema=schema.SOURCES))
    table.validate(full=True)
    return table


GOOD = wat_block([{"path": "IMG@/src", "url": "a.jpg", "alt": "a red bicycle"}])


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("length", [len(GOOD) - 1, len(GOOD) + 1, len(GOOD) + 3, len(GOOD) + 5, 0, 10**17])
def test_a_record_of_another_length_than_it_says_is_told_with_its_place(
    worker: crawl.Worker, tmp_path: Path, length: int, compress: bool
) -> None:
    pieces = [record(GOOD), record(GOOD, length=length), record(GOOD)]
    pieces = [gzip.compress(piece) for piece in pieces] if compress else pieces
    with pytest.raises(InputError, match=rf"a\.wat.*(broken in|ends in the middle of).*byte {len(pieces[0])}\b"):
        crawled(worker, tmp_path / "a.wat", "wat", b"".join(pieces))


@pytest.mark.parametrize(
    "head", [b"WARC/1.0\r\n\r\n", b"WARC/1.0\r\nContent-Length: -5\r\n\r\n", b"WARC/1.0\r\nX: " + b"x" * (2 << 20), b"junk"]
)
def test_a_header_that_is_none_is_told(worker: crawl.Worker, tmp_path: Path, head: bytes) -> None:
    first = gzip.compress(record(GOOD))
    for data in (first + gzip.compress(head), record(GOOD) + head):
        with pytest.raises(InputError, match=r"a\.wat.*(broken in|ends in the middle of)"):
            crawled(worker, tmp_path / "a.wat", "wat", data)


def test_headers_of_any_bytes_are_read(worker: crawl.Worker, tmp_path: Path) -> None:
    strange = b"X-\xff\xfe: \x00\xe4\r\nwarc-TYPE:  metadata\r\nWARC-TARGET-URI: <http://e.org/\xe4\xff>\r\n"
    text = b"WARC/1.1\r\n" + strange + b"content-length:%d\r\n\r\n" % len(GOOD) + GOOD + b"\r\n\r\n"
    for data in (gzip.compress(text), text):
        (row,) = crawled(worker, tmp_path / "a.wat", "wat", data).to_pylist()
        assert row["page_url"] == "http://e.org/\ufffd\ufffd"
        assert row["image_url"] == "http://e.org/a.jpg"


def test_links_are_not_lost_where_members_are_empty_or_padded(worker: crawl.Worker, tmp_path: Path) -> None:
    member = gzip.compress(record(GOOD))
    data = gzip.compress(b"") + member + gzip.compress(b"") + member + b"\0" * 5000
    found = crawled(worker, tmp_path / "a.wat.gz", "wat", b"WARC" * 0 + member + data)
    assert found["drop"].to_pylist() == [None, None, None]
    with pytest.raises(InputError, match="ends in the middle of a record"):
        crawled(worker, tmp_path / "a.wat.gz", "wat", member + b"\0" * 50 + member)


@pytest.mark.parametrize("compress", [True, False])
def test_a_record_that_inflates_to_very_much_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool
) -> None:
    monkeypatch.setattr(records, "MAX_BLOCK_BYTES", 4 << 20)
    path = tmp_path / "bomb.warc"
    size = 100 << 20
    block = html_block(b"<img src=a.jpg alt='a red bicycle'>")
    data = record(block + b"\0" * (size - len(block)), kind="response")
    path.write_bytes((gzip.compress(data, 1) if compress else data) + record(block, kind="response") * (not compress))
    del data
    tracemalloc.start()
    blocks = [found.block for found in archives.read_records(str(path), b"response")]
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()
    assert len(blocks[0]) == records.MAX_BLOCK_BYTES
    assert blocks[1:] == [block] * (not compress)


def test_very_many_links_and_very_long_texts_have_their_rows(worker: crawl.Worker, tmp_path: Path) -> None:
    links = [{"path": "IMG@/src", "url": f"/{i}.jpg", "alt": f"bicycle {i}"} for i in range(100_000)]
    links[7]["alt"], links[8]["alt"], links[9]["url"] = "wheel " * 200_000, "a\0b\ud800 bell", "/" + "x" * 1_000_000
    links[10]["alt"], links[11]["url"] = "&#x110000;" * 100_000, "a" * 1_000_000 + "&amp;"
    found = crawled(worker, tmp_path / "a.wat.gz", "wat", gzip.compress(record(wat_block(links)), 1))
    assert found.num_rows == 100_000
    assert found["link_index"].to_pylist() == list(range(100_000))
    drops = found["drop"].to_pylist()
    assert drops[7] == "too_long"
    assert found["text"][8].as_py() == "ab\ufffd bell"
    assert (drops[9], drops[11], set(drops[12:])) == ("bad_url", "bad_url", {None})


@pytest.mark.parametrize(
    "html",
    [
        b"<img src=a alt=" + b"x" * 3_000_000 + b">",
        b"<img src=a alt='&lt;&amp;" * 2000,
        b"<div>" * 100_000 + b"<img src=a alt=bicycle>",
        b"<figure><figcaption>" * 5000 + b"<img src=a alt=bicycle>",
        b"<img srcset='" + b"a 1x," * 200_000 + b"'>",
        b"<img " + b"a=b " * 200_000 + b">",
        b"<!--" * 100_000,
        b"&#xD800;<img src=a alt='&#xD800;&#0;\0 bicycle'>",
        b"<table>" * 3000 + b"<img alt=bicycle src=b>",
    ],
)
def test_pages_that_are_built_to_hurt_cost_seconds_at_most(worker: crawl.Worker, tmp_path: Path, html: bytes) -> None:
    start = time.process_time()
    good = record(html_block(b"<img src=a.jpg alt='a red bicycle'>"), kind="response")
    data = gzip.compress(record(html_block(html), kind="response"), 1) + gzip.compress(good)
    assert crawled(worker, tmp_path / "a.warc.gz", "warc", data)["drop"].to_pylist()[-1] is None
    assert time.process_time() - start < 20


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_archive_gives_rows_or_one_error(worker: crawl.Worker, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    name, kind = [("whirlwind.warc.gz", "warc"), ("whirlwind.warc.wat.gz", "wat")][seed % 2]
    data = bytearray((REAL / name).read_bytes())
    if seed % 3 == 0:
        data = bytearray(gzip.decompress(data))
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(data)))
        data[place : place + int(rng.integers(3))] = rng.bytes(int(rng.integers(3)))
    with suppress(InputError):  # any other error fails
        crawled(worker, tmp_path / "a", kind, bytes(data))
