"""Files cut into pieces: laid end to end they are the file, and what is torn is told."""

import bz2
import gzip
import hashlib
import os
from pathlib import Path

import pytest

from pipeline import dumps, pieces
from pipeline.errors import InputError
from tests.pipeline.dump_writer import Article, dump_xml, multistream

PAGES = [Article(f"Title {i}", f"text of {i}\n" * (i % 7)) for i in range(40)]
TEXT = b"".join(b"line %d of the text\n" % i for i in range(200))


def scan(path: Path, kind: str, piece_bytes: int) -> list[pieces.Piece]:
    return [pieces.Piece(**row) for row in pieces.scan(kind, 3, str(path), piece_bytes).to_pylist()]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("piece_bytes", [1, 100, 1000, 1 << 30])
@pytest.mark.parametrize("name", ["dump.xml", "dump.xml.bz2", "text.txt", "text.txt.gz", "text.txt.bz2"])
def test_the_pieces_laid_end_to_end_are_the_file(tmp_path: Path, name: str, piece_bytes: int) -> None:
    kind = name.split(".")[0]
    whole = dump_xml(PAGES) if kind == "dump" else TEXT
    stored = {"bz2": multistream(PAGES, 3) if kind == "dump" else bz2.compress(TEXT), "gz": gzip.compress(whole)}
    path = written(tmp_path / name, stored.get(name.split(".")[-1], whole))
    found = scan(path, kind, piece_bytes)
    assert b"".join(b"".join(pieces.blocks(piece)) for piece in found) == whole
    assert {piece.sha256 for piece in found} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert [piece.end for piece in found] == [*[piece.start for piece in found[1:]], path.stat().st_size]
    is_cut = name in ("dump.xml", "dump.xml.bz2", "text.txt")
    assert (len(found) > 3) == (is_cut and piece_bytes <= 1000)


@pytest.mark.parametrize("piece_bytes", [1, 300, 1 << 30])
def test_every_piece_of_a_dump_is_whole_pages(tmp_path: Path, piece_bytes: int) -> None:
    for name, data in {"a.xml": dump_xml(PAGES), "a.xml.bz2": multistream(PAGES, 3)}.items():
        titles = []
        for piece in scan(written(tmp_path / name, data), "dump", piece_bytes):
            ends = {"is_first": piece.start == 0, "is_last": piece.end == piece.file_bytes}
            titles += [page.title for page in dumps.pages(pieces.blocks(piece), name, max_page_chars=1 << 20, **ends)]
        assert titles == [page.title for page in PAGES]


def test_a_bzip2_file_whose_streams_begin_inside_pages_is_one_piece(tmp_path: Path) -> None:
    xml = dump_xml(PAGES)
    streams = b"".join(bz2.compress(xml[at : at + 100]) for at in range(0, len(xml), 100))
    (piece,) = scan(written(tmp_path / "parallel.xml.bz2", streams), "dump", 1)
    assert b"".join(pieces.blocks(piece)) == xml


def test_stream_marks_inside_the_text_fool_nobody(tmp_path: Path) -> None:
    xml = dump_xml([Article("A", "BZh91AY&SY" * 50), Article("B", "<page>" * 50)])
    for name, data in {"a.xml": xml, "a.xml.bz2": bz2.compress(xml)}.items():
        found = scan(written(tmp_path / name, data), "dump", 1)
        assert b"".join(b"".join(pieces.blocks(piece)) for piece in found) == xml
        assert len(found) <= 3


def test_members_padding_and_empty_streams_are_read(tmp_path: Path) -> None:
    cases = {
        "a.gz": gzip.compress(b"a b\n") + gzip.compress(b"") + gzip.compress(b"c\n") + b"\0" * 600,
        "a.bz2": bz2.compress(b"a b\n") + bz2.compress(b"") + bz2.compress(b"c\n"),
    }
    for name, data in cases.items():
        (piece,) = scan(written(tmp_path / name, data), "text", 10)
        assert b"".join(pieces.blocks(piece)) == b"a b\nc\n"


def test_a_packed_file_that_is_cut_anywhere_or_damaged_is_told(tmp_path: Path) -> None:
    for name, data in {"a.gz": gzip.compress(TEXT, mtime=0), "a.bz2": bz2.compress(TEXT)}.items():
        packing = "gzip" if name == "a.gz" else "bzip2"
        for end in range(1, len(data), 7):
            path = written(tmp_path / name, data[:end])
            with pytest.raises(InputError, match=rf"{name} .named in text_files. is not a whole {packing} file"):
                b"".join(b"".join(pieces.blocks(piece)) for piece in scan(path, "text", 1 << 20))
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0xFF
        for broken in (bytes(damaged), data + b"after the end"):
            path = written(tmp_path / name, broken)
            with pytest.raises(InputError, match=f"is not a whole {packing} file"):
                b"".join(b"".join(pieces.blocks(piece)) for piece in scan(path, "text", 1 << 20))


def test_a_packed_bomb_comes_in_blocks(tmp_path: Path) -> None:
    for name, pack in {"a.gz": gzip.compress, "a.bz2": bz2.compress}.items():
        (piece,) = scan(written(tmp_path / name, pack(b"\0" * (30 << 20))), "text", 1 << 20)
        sizes = [len(block) for block in pieces.blocks(piece)]
        assert sum(sizes) == 30 << 20
        assert max(sizes) <= pieces.BLOCK_BYTES


def test_what_cannot_be_cut_and_is_too_large_for_one_worker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_WHOLE_BYTES", 10)
    path = written(tmp_path / "a.xml.bz2", bz2.compress(dump_xml(PAGES)))
    with pytest.raises(
        InputError, match="in one piece, which one worker would have to count in memory; give the multistream dump"
    ):
        scan(path, "dump", 1 << 20)
    assert len(scan(path, "views", 1 << 20)) == 1


def test_the_quick_mark_changes_with_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", TEXT)
    first = pieces.mark(str(path), "text")
    assert pieces.mark(str(written(tmp_path / "a.txt", TEXT)), "text") == first
    assert pieces.mark(str(written(tmp_path / "a.txt", TEXT[:-1] + b"!")), "text") != first
    path = written(tmp_path / "b.txt", bytes(5 << 20))
    marks = set()
    for seconds in (1_000_000, 2_000_000):  # of a large file only the ends are read, so its time of change tells
        os.utime(path, (seconds, seconds))
        marks.add(pieces.mark(str(path), "text"))
    assert len(marks) == 2


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    for kind, field in pieces.KINDS.items():
        with pytest.raises(InputError, match=rf"no file .*nope .named in {field}.; correct the path"):
            pieces.mark(str(tmp_path / "nope"), kind)
