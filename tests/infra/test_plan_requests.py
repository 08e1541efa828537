"""The requests of a plan beside those that a store on loopback counts, of stages that the runner runs on it."""

import os
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

from infra.plan.build import Volume, traffic_of
from infra.plan.steps import PlanStep, Read
from pipeline import schema
from tests.conftest import REPOSITORY
from tests.infra.counting_store import CountingStore, counting_store

PARTS, BUCKETS, ROWS = 6, 5, 40_000
DRIVER = textwrap.dedent(
    """
    import sys
    import numpy as np
    import pyarrow as pa
    from pipeline import schema
    from pipeline.config import RunConfig
    from pipeline.events import Events
    from pipeline.runner import in_process, run, write_dataset
    from pipeline.stage import Stage, plan_group, plan_map

    what, parts, buckets, rows = sys.argv[1], *map(int, sys.argv[2:])
    root = "s3://bucket/root/"

    def worker(config, sides):
        return lambda table: table

    def bucket(table, number):
        return table["query_id"].to_numpy().astype(np.int64) % number

    if what == "source":
        draw = np.random.default_rng(0)
        tables = {}
        for part in range(parts):
            values = {f.name: draw.integers(0, 1 << 31, rows).astype(f.type.to_pandas_dtype()) for f in schema.COUNTS}
            tables[f"part-{part}"] = pa.table(values, schema=schema.COUNTS)
        write_dataset(root + "source", stage="source", version=1, config=None, parts=tables)
    else:
        plan = plan_map if what == "map" else plan_group
        cut = {"bucket": bucket, "buckets": lambda config: buckets} if what == "map" else {}
        stage = Stage(name=what, version=1, shape="map", worker=worker, writes=schema.COUNTS, plan=plan, **cut)
        source = "source" if what == "map" else "map"
        folders = {"sources": [root + source], "target": root + what}
        run(stage, None, **folders, settings=RunConfig(), events=Events(root, what), execute=in_process)
    """
)


def counted(store: CountingStore, what: str) -> tuple[Counter[str], int]:
    """What one run of the driver asks of the store."""
    store.requests.clear()
    store.bytes_out = 0
    keys = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": "wit",
        "AWS_SECRET_ACCESS_KEY": "wit",
        "AWS_REGION": "us-east-1",
    }
    command = [sys.executable, "-c", DRIVER, what, str(PARTS), str(BUCKETS), str(ROWS)]
    subprocess.run(command, check=True, cwd=REPOSITORY, env={**os.environ, **keys, "PYTHONPATH": str(REPOSITORY)})
    return Counter(store.requests), store.bytes_out


def test_the_store_is_asked_what_the_plan_says() -> None:
    with counting_store() as store:
        counted(store, "source")
        found = {what: counted(store, what) for what in ("map", "group")}
        sizes = {
            name: [len(data) for path, data in store.objects.items() if f"/{name}/part-" in path or f"/{name}/bucket-" in path]
            for name in ("source", "map", "group")
        }
        footer = float(max(int.from_bytes(data[-8:-4], "little") for path, data in store.objects.items() if "/map/part-" in path))
    volumes: dict[str, Volume] = {}
    for name, reads, tasks, groups in (
        ("source", (), PARTS, 1),
        ("map", (Read("source", "part"),), PARTS, BUCKETS),
        ("group", (Read("map", "buckets"),), BUCKETS, 1),
    ):
        volumes[name] = Volume(
            step=PlanStep(name, name, reads, "same", "pairs", schema.COUNTS), rows_in=PARTS * ROWS, rows_out=PARTS * ROWS,
            tasks=tasks, chains=tasks, data_files=tasks, groups=groups, bytes_out=sum(sizes[name]), footer_bytes=footer,
        )  # fmt: skip
    for name, (requests, num_bytes) in found.items():
        told = traffic_of(volumes[name], volumes, workers=1, queries=0)
        assert told.puts == pytest.approx(requests["PUT"] + requests["LIST"], abs=3), (name, requests)
        assert told.gets == pytest.approx(requests["GET"] + requests["HEAD"], abs=6), (name, requests)
        assert told.bytes_read == pytest.approx(num_bytes, rel=0.1), name
