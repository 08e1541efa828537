"""One Ray for all tests that need it, and a folder or bucket to work in."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_num_workers_soft_limit="8",
    RAY_idle_worker_killing_time_threshold_ms="60000",
    RAY_DEDUP_LOGS="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    PYTHONPATH=str(REPOSITORY),
)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a Ray on this machine that this process is connected to; drivers in other processes may join."""
    import ray

    # Ray's socket names must stay under 107 characters, which pytest's own folders do not leave room for.
    folder = tempfile.mkdtemp(prefix="ray-")
    context: Any = ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=150_000_000,
        _temp_dir=folder,
        log_to_driver=False,
        configure_logging=False,
    )
    yield context.address_info["address"]
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.object_store)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root: a folder, and where an object store is given a prefix in it too."""
    if request.param == "local":
        return str(tmp_path / "root")
    import s3fs

    assert os.environ.get("AWS_ENDPOINT_URL"), "object_store tests need AWS_ENDPOINT_URL and keys: see .ci/object_store_tests"
    store = s3fs.S3FileSystem()
    if not store.exists("wit-tests"):
        store.mkdir("wit-tests")
    return f"s3://wit-tests/{uuid.uuid4().hex}"
