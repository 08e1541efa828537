"""One copy for all processes: made once, whole or not at all, in a folder that is ours."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline import node_cache
from pipeline.errors import InputError

PROGRAM = """
import os, sys
from pipeline import node_cache

def make():
    with open(sys.argv[1], "a") as made:
        made.write(f"{os.getpid()}\\n")
    if sys.argv[2] == "hang":
        print("making", flush=True)
        sys.stdin.read()
    return b"content" * 100_000

print(len(node_cache.shared("name", make, lambda view: bytes(view))), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder, in an empty place."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"wit-cache-{os.getuid()}"


def start(made: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(made), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def whole(view: memoryview) -> bytes:
    if bytes(view[:4]) != b"good":
        raise ValueError("torn")
    return bytes(view)


def test_of_many_processes_one_makes_the_file(folder: Path, tmp_path: Path) -> None:
    workers = [start(tmp_path / "made", "go") for _ in range(4)]
    assert [worker.communicate()[0] for worker in workers] == ["700000\n"] * 4
    assert len((tmp_path / "made").read_text().splitlines()) == 1


def test_a_process_that_dies_while_it_makes_the_file_holds_up_nobody(folder: Path, tmp_path: Path) -> None:
    dying = start(tmp_path / "made", "hang")
    assert dying.stdout is not None
    assert dying.stdout.readline() == "making\n"
    waiting = start(tmp_path / "made", "go")
    dying.send_signal(signal.SIGKILL)
    dying.communicate()
    assert waiting.communicate()[0] == "700000\n"
    assert len((tmp_path / "made").read_text().splitlines()) == 2


def test_what_is_torn_is_made_again(folder: Path) -> None:
    assert node_cache.shared("a", lambda: b"good one", whole) == b"good one"
    assert node_cache.shared("a", lambda: b"good two", whole) == b"good one"
    for torn in (b"", b"bad"):
        (folder / "a").write_bytes(torn)
        assert node_cache.shared("a", lambda: b"good new", whole) == b"good new"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "lock"]


def test_a_maker_that_fails_leaves_nothing(folder: Path) -> None:
    def fail() -> bytes:
        raise InputError("no queries")

    with pytest.raises(InputError, match="no queries"):
        node_cache.shared("a", fail, whole)
    assert node_cache.shared("a", lambda: b"good", whole) == b"good"


def test_what_is_mapped_cannot_be_written_and_outlives_its_name(folder: Path) -> None:
    view = node_cache.shared("a", lambda: b"good one", lambda view: view)
    assert view.readonly
    (folder / "a").unlink()
    assert bytes(view) == b"good one"


def test_only_the_files_used_last_stay(folder: Path) -> None:
    for number in range(node_cache.KEEP + 5):
        node_cache.shared(f"{number:02}", lambda: b"good", whole)
        os.utime(folder / f"{number:02}", (number, number))
        node_cache.shared("00", lambda: b"lost", whole)  # used again and again
    names = {path.name for path in folder.iterdir()}
    assert len(names) <= node_cache.KEEP + 2
    assert {"lock", "00", f"{node_cache.KEEP + 4:02}"} <= names


def test_a_folder_that_others_may_write_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match=r"node cache: .* nobody else can write.* set TMPDIR"):
        node_cache.shared("a", lambda: b"good", whole)
    folder.rmdir()
    folder.symlink_to(tempfile.gettempdir())
    with pytest.raises(InputError, match="node cache"):
        node_cache.shared("a", lambda: b"good", whole)


def test_a_place_that_cannot_be_written_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(InputError, match=r"node cache: cannot write /proc/none/.* set TMPDIR"):
        node_cache.shared("a", lambda: b"good", whole)


def test_of_subfolders_those_used_last_are_kept(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (Path(node_cache.subfolder("code", name, 2)) / "file").write_text(name)
    node_cache.subfolder("code", "b", 2)
    node_cache.subfolder("code", "d", 2)
    kept = {path.name for path in Path(node_cache.subfolder("code", "d", 2)).parent.iterdir()}
    assert kept == {"lock", "b", "d"}
