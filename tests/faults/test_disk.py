"""A disk that dies in the middle of a run: the kernel itself answers EIO or ENOSPC, by a filter on system calls."""

import errno
import platform
import subprocess
import sys
import textwrap

import pytest

from pipeline.runner import in_process
from pipeline.storage import join
from tests.conftest import REPOSITORY
from tests.faults.stages import NumbersConfig, build, numbers

FSYNC = {"x86_64": 74, "aarch64": 82}  # its number among Linux's system calls
DRIVER = textwrap.dedent(
    """
    import ctypes, struct, sys
    from pipeline.errors import InputError
    from pipeline.runner import in_process
    from tests.faults.stages import NumbersConfig, build, numbers

    root, number, error, parts = sys.argv[1], *map(int, sys.argv[2:])
    NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2  # prctl(2), seccomp(2)

    def disk_dies():
        # load the call's number; if it is `number`: answer `error`; allow all others
        steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        assert libc.prctl(SECCOMP, FILTER, program, 0, 0) == 0, ctypes.get_errno()

    def execute(job, pending, settings):
        for made, part in enumerate(in_process(job, pending, settings)):
            yield part
            if made + 1 == parts and job.stage.name == "keep":
                disk_dies()

    try:
        build(root, NumbersConfig(), numbers(5), execute=execute)
    except InputError as mistake:
        print(mistake)
    """
)


@pytest.mark.parametrize(("error", "words"), [(errno.EIO, "the disk failed"), (errno.ENOSPC, "the disk is full")])
def test_a_disk_that_dies_in_the_middle_commits_nothing_false(tmp_path, error: int, words: str):
    if platform.machine() not in FSYNC:
        pytest.skip("needs to know the number of fsync")
    root, other = (str(tmp_path / name) for name in ("root", "other"))
    command = [sys.executable, "-c", DRIVER, root, str(FSYNC[platform.machine()]), str(error), "2"]
    found = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert f"cannot write {join(root, '1', 'part-2.parquet')}" in found.stdout
    assert words in found.stdout
    assert "(2 of 5 parts" in found.stdout
    assert not list(tmp_path.glob("**/*.tmp"))
    again = build(root, NumbersConfig(), numbers(5), execute=in_process)
    assert [m.hash for m in again] == [m.hash for m in build(other, NumbersConfig(), numbers(5), execute=in_process)]
