"""pipeline/archives.py: which archives there are, their records, and where they may end."""

import functools
import gzip
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from pipeline import records
from pipeline.archives import expand_archives, part_name, read_records
from pipeline.errors import InputError

REAL = Path(__file__).parent.parent / "data" / "commoncrawl"
WARC, WAT = str(REAL / "whirlwind.warc.gz"), str(REAL / "whirlwind.warc.wat.gz")


def write_archive(path: Path, bodies: list[bytes], *, compress: bool) -> list[int]:
    """A WARC of response records; returns where each record begins, and the file's size."""
    ends = [0]
    with path.open("wb") as file:
        for number, body in enumerate(bodies):
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
            head = (
                f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number:032d}>\r\n"
                f"WARC-Target-URI: http://e.org/{number}\r\n"
                f"WARC-Date: 2024-05-18T01:58:10Z\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
            )
            record = head.encode() + block + b"\r\n\r\n"
            file.write(gzip.compress(record) if compress else record)
            ends.append(file.tell())
    return ends


def offsets(path: str | Path) -> list[int]:
    return [record.offset for record in read_records(str(path), b"response")]


@pytest.mark.parametrize("compress", [True, False])
def test_records_are_those_that_warcio_reads(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "a.warc"
    ends = write_archive(path, [b"<img>" * 10 * i + b"\r\n\r\nWARC/1.0" for i in range(20)], compress=compress)
    with path.open("rb") as file:
        expected = [(r.rec_headers["WARC-Target-URI"], r.raw_stream.read()) for r in ArchiveIterator(file, no_record_parse=True)]
    found = list(read_records(str(path), b"response"))
    assert [(record.target, record.block) for record in found] == expected
    assert [record.offset for record in found] == ends[:-1]


@pytest.mark.parametrize("compress", [True, False])
def test_every_cut_but_those_between_records_is_noticed(tmp_path: Path, compress: bool) -> None:
    path, cut = tmp_path / "a.warc", tmp_path / "cut.warc"
    bodies = [b"<p>hello</p>", b"<img src=a>\r\n\r\n" * 3, os.urandom(300), b"\r\n\r\n"]
    ends = write_archive(path, bodies, compress=compress)
    data = path.read_bytes()
    for size in range(1, len(data) + 1):
        cut.write_bytes(data[:size])
        if size in ends:
            assert offsets(cut) == ends[: ends.index(size)], size
        else:
            with pytest.raises(InputError, match=r"cut\.warc"):
                offsets(cut)


def test_every_cut_of_a_real_archive_is_noticed(tmp_path: Path) -> None:
    data, cut = Path(WARC).read_bytes(), tmp_path / "cut.warc.gz"
    for size in [*range(1, len(data), 61), *range(len(data) - 12, len(data))]:
        if size in (516, 1023, 18374):
            continue
        cut.write_bytes(data[:size])
        with pytest.raises(InputError):
            offsets(cut)


def test_a_cut_is_told_with_archive_place_and_what_to_do(tmp_path: Path) -> None:
    cut = tmp_path / "cut.warc.gz"
    cut.write_bytes(Path(WARC).read_bytes()[:9000])
    with pytest.raises(
        InputError, match=r"crawl: .*cut\.warc\.gz ends in the middle of a record, .*byte 1023: .*download it again"
    ):
        offsets(cut)


def test_a_content_length_that_is_too_long_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    write_archive(path, [b"<p>a</p>", b"<p>b</p>"], compress=False)
    data = path.read_bytes()
    start = data.rindex(b"Content-Length: ") + len(b"Content-Length: ")
    path.write_bytes(data[:start] + b"9" + data[start:])
    with pytest.raises(InputError, match="ends in the middle of a record"):
        offsets(path)


@pytest.mark.parametrize("at", range(1040, 18360, 1733))
def test_a_flipped_byte_is_noticed(tmp_path: Path, at: int) -> None:
    data = bytearray(Path(WARC).read_bytes())
    data[at] ^= 0x10
    path = tmp_path / "flipped.warc.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"flipped\.warc\.gz"):
        offsets(path)


def test_an_archive_compressed_in_one_piece_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.warc.gz"
    path.write_bytes(gzip.compress(gzip.decompress(Path(WARC).read_bytes())))
    with pytest.raises(InputError, match="one piece; rewrite it with `warcio recompress"):
        offsets(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04" + b"x" * 99, "PK"),
        (gzip.compress(b"hello there"), "hello there"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 99, "zstd"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_a_file_that_is_no_archive_is_refused_whatever_its_name(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(content)
    for read in (lambda: expand_archives([str(path)]), lambda: offsets(path)):
        with pytest.raises(InputError, match=rf"crawl: .*a\.warc\.gz: expected .*{found}"):
            read()


def test_missing_paths_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.warc: expected an archive, found nothing there"):
        expand_archives([str(tmp_path / "no.warc")])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"expected a folder with \*\.warc\.gz.* found 1 other files"):
        expand_archives([str(tmp_path)])
    with pytest.raises(InputError, match="expected at least one archive, found none"):
        expand_archives([])


def test_the_format_is_what_the_first_records_say(tmp_path: Path) -> None:
    renamed = tmp_path / "really.html"
    renamed.write_bytes(Path(WAT).read_bytes())
    page = tmp_path / "page.bin"
    page.write_text("<!DOCTYPE html><p>hi")
    found = expand_archives([WARC, WAT, str(renamed), str(page)])
    assert [source.format for source in found] == ["warc", "wat", "wat", "html"]
    assert [source.archive_bytes for source in found] == [18857, 1361, 1361, 20]


def test_a_folder_means_the_archives_below_it_else_its_pages(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("b.html", "x/a.htm"):
        (tmp_path / name).write_text("<p>just a paragraph")
    assert [source[:2] for source in expand_archives([str(tmp_path)])] == [
        (str(tmp_path / "b.html"), "html"),
        (str(tmp_path / "x/a.htm"), "html"),
    ]
    write_archive(tmp_path / "x" / "c.warc.gz", [b"<p>"], compress=True)
    write_archive(tmp_path / "x" / "b.warc", [b"<p>"], compress=False)
    expected = [(str(tmp_path / "x/b.warc"), "warc"), (str(tmp_path / "x/c.warc.gz"), "warc")]
    assert [source[:2] for source in expand_archives([str(tmp_path)])] == expected
    assert [source[:2] for source in expand_archives([str(tmp_path), str(tmp_path / "x/c.warc.gz")])] == expected  # each once


def test_a_paths_file_means_the_archives_that_it_lists(tmp_path: Path) -> None:
    listed = tmp_path / "wat.paths.gz"
    listed.write_bytes(
        gzip.compress(b"crawl-data/CC-MAIN-2024-22/segments/1/wat/CC-1.warc.wat.gz\n\ns3://b/2.warc.gz\n/data/3.wat\n")
    )
    assert expand_archives([str(listed)]) == [
        ("https://data.commoncrawl.org/crawl-data/CC-MAIN-2024-22/segments/1/wat/CC-1.warc.wat.gz", "wat", None),
        ("s3://b/2.warc.gz", "warc", None),
        ("/data/3.wat", "wat", None),
    ]
    for content in (b"", b"what/is/this.wet.gz\n", gzip.compress(b"a.warc.gz\n")[:-5]):
        listed.write_bytes(content)
        with pytest.raises(InputError, match=r"wat\.paths\.gz"):
            expand_archives([str(listed)])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(REAL))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_may_be_on_a_web_server(site: str) -> None:
    url = f"{site}/whirlwind.warc.gz"
    assert expand_archives([url]) == [(url, "warc", 18857)]
    assert offsets(url) == [1023]
    with pytest.raises(InputError, match=r"/missing\.warc\.gz: expected an archive, found nothing there"):
        expand_archives([f"{site}/missing.warc.gz"])
    with pytest.raises(InputError, match=r"cannot be read: .*try again later"):
        offsets("http://127.0.0.1:9/a.warc.gz")


def test_an_archive_may_be_in_another_file_system() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe_file("/crawl/x.warc.gz", Path(WARC).read_bytes())
    (source,) = expand_archives(["memory://crawl"])
    assert source == ("memory:///crawl/x.warc.gz", "warc", 18857)
    assert offsets(source.archive) == [1023]


def test_names_of_parts_are_safe_and_their_own() -> None:
    assert part_name("s3://b/CC-MAIN-2024.warc.wat.gz") == part_name("s3://b/CC-MAIN-2024.warc.wat.gz")
    names = [
        part_name(archive) for archive in ("s3://b/a.warc.gz", "s3://c/a.warc.gz", "a.wat", "/x/../ö ü.html", "http://e.org/")
    ]
    assert len(set(names)) == 5
    for name in names:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert names[0].startswith("a-")
    assert len(part_name("x" * 5000)) < 100


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_records_do_not_depend_on_the_pieces_that_they_come_in(tmp_path: Path, compress: bool, size: int) -> None:
    path = tmp_path / "a.warc"
    ends = write_archive(path, [b"<p>hello</p>", os.urandom(300), b"", b"\r\n\r\n" * 3], compress=compress)
    data = path.read_bytes()
    pieces = (data[i : i + size] for i in range(0, len(data), size))
    found = list(records.read("a", pieces, b"response"))
    assert found == list(read_records(str(path), b"response"))
    assert [record.offset for record in found] == ends[:-1]
