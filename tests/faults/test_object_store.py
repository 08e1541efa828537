"""A real object store whose gateway and writers are killed: no half object is ever seen, and a build comes out the same.

OBJECT_STORE names the script that kills and starts the gateway, OBJECT_STORE_FOLDER its folder: see .ci/object_store_tests.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
import s3fs

from pipeline import storage
from pipeline.storage import join
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.object_store


def gateway(verb: str) -> None:
    """kill or gateway: the store's front end dies, or comes back."""
    if not {"OBJECT_STORE", "OBJECT_STORE_FOLDER"} <= set(os.environ):
        pytest.skip("needs OBJECT_STORE and OBJECT_STORE_FOLDER, to kill the gateway")
    subprocess.run([os.environ["OBJECT_STORE"], verb, os.environ["OBJECT_STORE_FOLDER"]], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def bucket(root: str) -> str:
    if not root.startswith("s3://"):
        pytest.skip("needs the object store")
    return root


def body(seed: int, num_bytes: int) -> bytes:
    return bytes([seed]) * num_bytes


WRITER = textwrap.dedent(
    """
    import sys
    from pipeline import storage
    storage.write(sys.argv[1], bytes([7]) * int(sys.argv[2]))
    """
)


def test_a_large_object_is_written_in_pieces_and_seen_whole_or_not_at_all(bucket: str) -> None:
    path, seen, done = join(bucket, "large"), set[int | None](), threading.Event()
    old, new = body(1, 1000), body(2, 2 * storage.PIECE_BYTES + 5)

    def watch() -> None:
        while not done.is_set():
            seen.add(s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True).info(path)["size"])

    storage.write(path, old)
    watcher = threading.Thread(target=watch)
    watcher.start()
    storage.write(path, new)
    done.set()
    watcher.join()
    assert storage.read(path) == new
    assert seen <= {len(old), len(new)}
    etag = s3fs.S3FileSystem(skip_instance_cache=True).info(path)["ETag"].strip('"')
    assert etag.endswith("-3"), "it went up in three pieces"


def test_a_writer_killed_in_the_middle_leaves_what_was_there(bucket: str) -> None:
    path, old = join(bucket, "killed"), body(1, 1000)
    storage.write(path, old)
    name, _, key = path.removeprefix("s3://").partition("/")
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    command = [sys.executable, "-c", WRITER, path, str(12 * storage.PIECE_BYTES)]
    with subprocess.Popen(command, cwd=REPOSITORY) as writer:
        while not dict(store.call_s3("list_multipart_uploads", Bucket=name, Prefix=key) or {}).get("Uploads"):
            assert writer.poll() is None, "it was too fast to be killed"
        writer.send_signal(signal.SIGKILL)
    assert storage.read(path) == old
    storage.write(path, body(3, 2000))
    assert storage.read(path) == body(3, 2000)


def test_a_gateway_that_is_killed_and_comes_back_loses_nothing(bucket: str) -> None:
    """Whatever is under way is made again; what was written before is there."""
    stop, errors = threading.Event(), list[BaseException]()
    written: dict[str, bytes] = {}

    def work(lane: int) -> None:
        for number in range(1000):
            if stop.is_set():
                return
            path, data = join(bucket, f"{lane}-{number}"), body(number % 256, 100_000)
            storage.write(path, data)
            assert storage.size(path) == len(data)
            with storage.open_read(path) as file:
                assert file.read() == data
            written[path] = data

    def guarded(lane: int) -> None:
        try:
            work(lane)
        except (storage.InputError, AssertionError) as error:
            errors.append(error)

    lanes = [threading.Thread(target=guarded, args=(lane,)) for lane in range(4)]
    for lane in lanes:
        lane.start()
    while len(written) < 20:
        assert not errors
    gateway("kill")
    count = len(written)
    gateway("gateway")
    while len(written) < count + 20:
        assert not errors
    stop.set()
    for lane in lanes:
        lane.join()
    assert not errors
    assert all(storage.read(path) == data for path, data in written.items())
