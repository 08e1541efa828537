"""Manners over a whole cluster: a host's limits hold however many workers there are and however many parts its pairs fill."""

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web

from pipeline import download, schema
from pipeline.config import RunConfig
from pipeline.events import Events
from pipeline.manifest import Dataset
from pipeline.runner import in_process, run, write_dataset
from tests.pipeline.cluster import cluster
from tests.pipeline.loopback import Handler, Web, pairs, say, serve
from tests.pipeline.odd_files import encode, shapes

GOOD = encode(shapes(), "JPEG")
LIMIT = 2
NUM_LARGE, NUM_SMALL = 48, 6  # pairs of the large host, and of each small one
HOSTS = {"large.test": "127.0.0.1", **{f"small-{n}.test": "127.0.0.1" for n in range(4)}}


def slowly(body: bytes, seconds: float) -> Handler:
    """An answer that takes a while, as over a real network."""

    async def handler(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(seconds)
        return web.Response(body=body)

    return handler


def large_host_in_one_bucket(root: Path) -> None:
    """3_balanced with two buckets of hosts; the large host fills many parts of the first."""
    large = [f"http://large.test/{n}.jpg" for n in range(NUM_LARGE)]
    small = [[f"http://small-{host}.test/{n}.jpg" for n in range(NUM_SMALL)] for host in range(4)]
    parts = {"bucket-00000": pairs([*small[0], *large, *small[1]]), "bucket-00001": pairs([*small[2], *small[3]])}
    write_dataset(str(root / "3_balanced"), stage="balance", version=1, config=None, parts=parts)


def fetch_all(site: Web, root: Path, execute) -> list[tuple]:
    """Run the stage with parts of 8 pairs; what came out, by URL."""
    large_host_in_one_bucket(root)
    config = site.config(concurrency_per_host=LIMIT, pairs_per_part=8, robots=False, timeout_seconds=30, stall_seconds=30)
    target, events = str(root / "4_images"), Events(str(root), "test")
    settings = RunConfig()
    made = run(
        download.STAGE,
        config,
        sources=[str(root / "3_balanced")],
        target=target,
        settings=settings,
        events=events,
        execute=execute,
    )
    assert len(made.parts) > NUM_LARGE // 8
    assert made.rows_out == made.rows_in
    return sorted(zip(*(Dataset(target).read()[name].to_pylist() for name in ("image_url", "sha256", "phash")), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_host_that_fills_many_parts_never_sees_more_than_its_limit(tmp_path: Path) -> None:
    routes = {f"/{n}.jpg": slowly(GOOD, 0.05) for n in range(NUM_LARGE)}
    with serve(routes, tmp_path, HOSTS) as site:
        rows = fetch_all(site, tmp_path / "chained", cluster(3))
        chained = dict(site.peak)
        site.peak.clear()
        assert rows == fetch_all(site, tmp_path / "apart", cluster(3, chained=False))
        apart = dict(site.peak)
        assert rows == fetch_all(site, tmp_path / "alone", in_process)
    assert max(chained.values()) <= LIMIT
    assert chained["large.test"] == LIMIT
    assert apart["large.test"] > LIMIT, "the same cluster without chains shows that the test can tell"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_keeps_to_the_limit_too(tmp_path: Path, ray_address: str) -> None:
    routes = {f"/{n}.jpg": slowly(GOOD, 0.05) for n in range(NUM_LARGE)}
    with serve(routes, tmp_path, HOSTS) as site:
        rows = fetch_all(site, tmp_path / "ray", None)
        assert max(site.peak.values()) == LIMIT
        assert rows == fetch_all(site, tmp_path / "alone", in_process)


def test_a_crawl_delay_is_kept_and_one_that_would_take_for_ever_ends_the_visit(tmp_path: Path) -> None:
    times: dict[str, list[float]] = {"slow.test": [], "glacial.test": [], "site.test": []}

    async def note(request: web.BaseRequest) -> web.Response:
        times[request.host.split(":")[0]].append(time.monotonic())
        return web.Response(body=GOOD)

    routes: dict[str, Handler] = {f"/{n}.jpg": note for n in range(4)}
    routes["slow.test/robots.txt"] = say(b"User-agent: otherbot\nCrawl-delay: 9\n\nUser-agent: *\nCrawl-delay: 0.3")
    routes["glacial.test/robots.txt"] = say(b"User-agent: wit-bot\nCrawl-delay: 86400")
    urls = [f"http://{host}/{n}.jpg" for host in times for n in range(4)]
    with serve(routes, tmp_path, {"slow.test": "127.0.0.1", "glacial.test": "127.0.0.1"}) as site:
        drops = download.Worker(site.config(), {})(pairs(urls))[schema.DROP.name].to_pylist()
    assert drops[:4] == [None] * 4
    assert drops[8:] == [None] * 4
    assert sorted(drops[4:8], key=str) == [None, "robots", "robots", "robots"]
    gaps = [later - earlier for earlier, later in zip(times["slow.test"], times["slow.test"][1:], strict=False)]
    assert min(gaps) > 0.25


def test_who_waits_for_a_slow_host_takes_no_place_from_the_others(tmp_path: Path) -> None:
    routes = {f"/{n}.jpg": say(GOOD) for n in range(20)} | {"slow.test/robots.txt": say(b"User-agent: *\nCrawl-delay: 1")}
    urls = [f"http://slow.test/{n}.jpg" for n in range(3)] + [f"http://site.test/{n}.jpg" for n in range(20)]
    with serve(routes, tmp_path, {"slow.test": "127.0.0.1"}) as site:
        table = download.Worker(site.config(concurrency=2, concurrency_per_host=3), {})(pairs(urls))
        asked = [host for host, path in site.asked if path != "/robots.txt"]
    assert table[schema.DROP.name].null_count == len(urls)
    assert asked[-1] == "slow.test"
