"""When and how each picture was asked for is told in the log of its part, and changes no hash and no row."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import download, schema, visits
from pipeline.config import RunConfig
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.runner import in_process, retry, run, write_dataset
from pipeline.stage import Step
from tests.pipeline.loopback import Handler, Web, breaks, hang, in_turn, pairs, say, serve
from tests.pipeline.test_download import GOOD

NOTHING = {name: None for name in schema.FETCHED.names if name != "fetched_at"} | {"num_requests": 0}


ROUTES: dict[str, Handler] = {
    "/good.jpg": say(GOOD, Content_Type="image/jpeg", ETag='"1"', Last_Modified="Wed, 25 Nov 2026 00:00:00 GMT"),
    "/moved.jpg": say(status=301, Location="/good.jpg"),
    "/busy.jpg": in_turn(say(status=503, Retry_After="0"), say(GOOD, Content_Type="image/x")),
    "/gone.jpg": say(status=410),
    "/sick.jpg": say(status=503, Retry_After="0"),
    "/no.jpg": say(GOOD, X_Robots_Tag="noai"),
    "/odd.jpg": say(b"", status=404, ETag="x" * 5000),
    "/torn.jpg": breaks,
    "/slow.jpg": hang,
    "closed.test/robots.txt": say(b"User-agent: *\nDisallow: /"),
}
PLACES = {"closed.test": "127.0.0.1", "refused.test": "127.0.0.2"}
FATES = {  # url -> what the log must say, beside the time
    "http://site.test/good.jpg": {"num_requests": 1, "last_status": 200, "content_type": "image/jpeg", "etag": '"1"',
                                  "last_modified": "Wed, 25 Nov 2026 00:00:00 GMT", "content_length": str(len(GOOD))},
    "http://site.test/moved.jpg": {"num_requests": 2, "last_status": 200, "final_url": "http://site.test/good.jpg"},
    "http://site.test/busy.jpg": {"num_requests": 2, "last_status": 200, "content_type": "image/x", "retry_after": None},
    "http://site.test/gone.jpg": {"num_requests": 1, "last_status": 410, "drop": "http_4xx"},
    "http://site.test/sick.jpg": {"num_requests": 3, "last_status": 503, "retry_after": "0", "drop": "http_5xx"},
    "http://site.test/no.jpg": {"num_requests": 1, "last_status": 200, "x_robots_tag": "noai", "drop": "opt_out"},
    "http://site.test/odd.jpg": {"last_status": 404, "etag": "x" * visits.MAX_HEADER_CHARS, "drop": "http_4xx"},
    "http://refused.test/good.jpg": NOTHING | {"drop": "connect"},  # of its robots.txt
    "http://site.test/torn.jpg": {"num_requests": 3, "last_status": 200, "content_length": "1000", "drop": "connect"},
    "http://site.test/slow.jpg": {"num_requests": 3, "last_status": None, "content_type": None, "drop": "timeout"},
    "http://closed.test/good.jpg": NOTHING | {"drop": "robots"},
}  # fmt: skip


def made(site: Web, root: Path, **fields: Any) -> Manifest:
    """4_images of every URL of FATES, one of which two pairs show."""
    write_dataset(
        f"{root}/3_balanced", stage="balance", version=1, config=None, parts={"all": pairs([*FATES, next(iter(FATES))])}
    )
    config = site.config(max_host_failures=1000, timeout_seconds=0.5, **fields)
    return run(
        download.STAGE, config, sources=[f"{root}/3_balanced"], target=f"{root}/4_images",
        settings=RunConfig(verify="hash"), events=Events(str(root), "test"), execute=in_process,
    )  # fmt: skip


def log_of(root: Path) -> pa.Table:
    """All that is logged of the part."""
    logs = Dataset(f"{root}/4_images").parts["all"].logs
    return pa.concat_tables([pq.read_table(root / "4_images" / file.name) for file in logs])


def test_the_log_tells_when_and_how_each_picture_was_asked_for(tmp_path: Path):
    before = int(time.time() * 1000)
    with serve(ROUTES, tmp_path, PLACES) as site:
        made(site, tmp_path / "root")
    log = log_of(tmp_path / "root")
    times = [at.timestamp() * 1000 for at in log["fetched_at"].to_pylist()]
    rows = log.to_pylist()
    balanced = Dataset(str(tmp_path / "root/3_balanced")).read().to_pylist()
    assert [row["pair_id"] for row in rows] == [row["pair_id"] for row in balanced]
    for at, row, pair in zip(times, rows, balanced, strict=True):
        wanted = {"drop": None, "final_url": pair["image_url"], **FATES[pair["image_url"]]}
        assert {name: row[name] for name in wanted} == wanted, pair["image_url"]
        assert before <= at <= time.time() * 1000 + 1


def test_two_runs_at_different_times_are_the_same_dataset(tmp_path: Path):
    with serve({**ROUTES, "/busy.jpg": say(GOOD)}, tmp_path, PLACES) as site:
        first, second = (made(site, tmp_path / name) for name in ("first", "second"))
        assert first.hash == second.hash
        (part, other) = (manifest.parts[0] for manifest in (first, second))
        assert part.files == other.files
        assert part.logs != other.logs
        for folder in ("_dropped", "_failed"):
            names = set(pq.read_schema(tmp_path / f"first/4_images/{folder}/all.parquet").names)
            assert not names & set(schema.FETCHED.names), "what is hashed knows no time"
        (tmp_path / "first/4_images" / part.logs[0].name).unlink()
        site.asked.clear()
        assert made(site, tmp_path / "first").hash == first.hash
        assert not site.asked, "nothing is fetched again for a log"


def test_a_row_that_is_tried_again_is_in_the_log_twice(tmp_path: Path):
    with serve(ROUTES, tmp_path, PLACES) as site:
        made(site, tmp_path / "root")
        site.routes = {**ROUTES, "/sick.jpg": say(GOOD, Content_Type="image/jpeg")}
        step = Step(download.STAGE, site.config(max_host_failures=1000, timeout_seconds=0.5), ["3_balanced"], "4_images")
        events = Events(str(tmp_path), "test")
        retry(step, str(tmp_path / "root"), settings=RunConfig(verify="hash"), events=events, execute=in_process)
    dataset = Dataset(str(tmp_path / "root/4_images"))
    assert [file.name for file in dataset.parts["all"].logs] == ["_log/all.parquet", "_log/all.retry-1.parquet"]
    log = log_of(tmp_path / "root")
    sick = [row for row in log.to_pylist() if row["final_url"] == "http://site.test/sick.jpg"]
    assert [(row["drop"], row["last_status"]) for row in sick] == [("http_5xx", 503), (None, 200)]


@pytest.mark.parametrize("value", ["\udc80\udcff", "a\x1b[31m", "", "ü" * 2000])
def test_a_header_may_be_anything(value: str):
    class Headers:
        def getall(self, key: str, default: list[str], /) -> list[str]:
            return [value] if key == "ETag" else default

    visit = visits.Visit()
    visit.ask("http://a.test/")
    visit.hear(200, Headers())
    (row,) = visits.add(pairs(["http://a.test/"]), {"http://a.test/": visit}).select(["etag"]).to_pylist()
    assert row["etag"] == (None if not value else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")[:1000])
