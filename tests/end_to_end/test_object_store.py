"""The whole build with its root in a real object store whose gateway is killed twice: the manifests are the undisturbed ones."""

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import build_queries, build_wit
from pipeline import storage
from pipeline.config import MiniConfig
from pipeline.errors import InputError
from tests.end_to_end.test_faults import hashes
from tests.faults.test_object_store import gateway

KILLED_AT = ("1_candidates/_MANIFEST.json", "4_images/_FINGERPRINT.json")  # when these are there
DOWN_SECONDS = 3.0


@pytest.mark.slow
@pytest.mark.object_store
@pytest.mark.timeout(900)
def test_a_gateway_killed_in_the_middle_of_a_build_changes_nothing(built: tuple[MiniConfig, Path], root: str) -> None:
    if not root.startswith("s3://"):
        pytest.skip("needs the object store")
    config, over, kills = replace(built[0], root=root), threading.Event(), list[str]()

    def kill() -> None:
        for name in KILLED_AT:
            while storage.size(storage.join(root, name)) is None and not over.is_set():
                over.wait(0.05)
            if not over.is_set():
                gateway("kill")
                over.wait(DOWN_SECONDS)
                gateway("gateway")
                kills.append(name)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(3):  # it survives, or it is resumed
            with suppress(InputError):
                build_queries.main(config)
                build_wit.main(config)
                break
    finally:
        over.set()
        killer.join()
    assert tuple(kills) == KILLED_AT
    assert hashes(root) == hashes(built[0].root)
