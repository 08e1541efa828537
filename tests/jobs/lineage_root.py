"""A small web on which every fate occurs, and the dataset that jobs/build_wit.py makes of it in this process."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import build_wit
from pipeline import schema
from pipeline.config import BalanceConfig, CrawlConfig, DedupeConfig, MatchConfig, MiniConfig, RunConfig, ShardConfig
from pipeline.runner import in_process, run_steps, write_dataset
from tests.pipeline.loopback import Handler, Web, in_turn, say
from tests.pipeline.odd_files import encode, shapes
from tests.pipeline.test_crawl import response, wat_response

QUERIES = ["dog", "cat", "red car", "house", "of"]
NUM_LINKS = 160
HOSTS = [f"host{number}.test" for number in range(5)]
MOVED = ("/moved.jpg", "/target.jpg")


def picture(number: int) -> bytes:
    """Some pictures come three times, one comes under many URLs, some only nearly."""
    if number % 11 == 0:
        return encode(shapes(seed=10_000), "JPEG", quality=95)
    return encode(shapes(seed=number // 3), "JPEG", quality=60 if number % 3 == 2 else 95)


def answers(number: int) -> Handler:
    """What a server says: mostly the picture."""
    faults: dict[int, Handler] = {
        3: say(status=404, ETag='"gone"'), 7: say(status=500), 11: say(b"<html>not here</html>"),
        13: say(b"x", X_Robots_Tag="noai"),
        17: in_turn(say(status=503, Retry_After="0"), say(picture(number), Content_Type="image/jpeg")),
        19: say(status=302, Location="/nowhere-else.jpg"),
    }  # fmt: skip
    return faults.get(number % 23, say(picture(number), Content_Type="image/jpeg"))


def routes() -> dict[str, Handler]:
    """Everything that the hosts say."""
    found = {f"{HOSTS[number % 5]}/{number}.jpg": answers(number) for number in range(NUM_LINKS)}
    forbids = {f"{HOSTS[4]}/robots.txt": say(b"User-agent: *\nDisallow: /9")}
    return {**found, **forbids, MOVED[0]: say(status=301, Location=MOVED[1]), MOVED[1]: say(picture(9999))}


def texts() -> list[str]:
    """A text for each link; some hold no query, some the crawl refuses."""
    chance = np.random.default_rng(5)
    things = ["a dog", "the cat of a friend", "my red car", "one house", "some tree"]
    found = [f"{things[int(chance.integers(5))]} in picture {number}" for number in range(NUM_LINKS)]
    for number, text in ((1, ""), (2, "!!"), (4, "dog " + "a" * 30)):
        found[number] = text
    return found


def archives(folder: Path) -> list[str]:
    """A WARC and two WATs. Links of the second WAT repeat pairs of the others; the first page of it has a base."""
    links = [(f"http://{HOSTS[number % 5]}/{number}.jpg", text) for number, text in enumerate(texts())]
    links.append((f"http://{HOSTS[0]}{MOVED[0]}", "a dog that moved"))
    pages = ["".join(f'<img src="{url}" alt="{text}">' for url, text in some) for some in (links[:40], links[40:80])]
    (folder / "a.warc.gz").write_bytes(
        b"".join(response(f"http://page.test/{number}", f"<p>x</p>{page}") for number, page in enumerate(pages))
    )
    entries = [{"path": "IMG@/src", "url": url, "alt": text} for url, text in links]
    first = [entry | {"url": entry["url"].rsplit("/", 1)[1]} for entry in entries if f"//{HOSTS[1]}/" in entry["url"]]
    wats = {
        "b.warc.wat.gz": [("http://page.test/2", entries[80:120], None), ("http://page.test/3", entries[120:], None)],
        "c.warc.wat.gz": [("http://page.test/4", first, f"http://{HOSTS[1]}/"), ("http://page.test/5", entries[::7], None)],
    }
    for name, records in wats.items():
        (folder / name).write_bytes(b"".join(wat_response(url, some, base) for url, some, base in records))
    return [str(folder / name) for name in ("a.warc.gz", *wats)]


def config(site: Web, folder: Path, root: str) -> MiniConfig:
    """Limits that this web exceeds."""
    evaluation = folder / "evaluation"
    evaluation.mkdir(exist_ok=True)
    (evaluation / "one.png").write_bytes(encode(shapes(seed=20), "PNG"))
    return MiniConfig(
        root=root, archives=tuple(archives(folder)), crawl=CrawlConfig(language=""), match=MatchConfig(num_buckets=3),
        balance=BalanceConfig(max_per_query=9, oversample=3.0, num_query_buckets=2), run=RunConfig(dropped_sample=10**6),
        download=replace(site.config(), pairs_per_part=20, min_image_size=16, max_host_failures=1000),
        dedupe=DedupeConfig(num_buckets=4, max_urls_per_image=4, evaluation_sets=(str(evaluation),)),
        shard=ShardConfig(pairs_per_shard=7, parts_per_group=2),
    )  # fmt: skip


def write_queries(root: str) -> None:
    """The query list."""
    rows = [{"query_id": number, "query": query, "source": "concept", "score": None} for number, query in enumerate(QUERIES)]
    parts = {"all": pa.Table.from_pylist(rows, schema.QUERIES)}
    write_dataset(f"{root}/queries", stage="queries", version=1, config=None, parts=parts)


def build(config: MiniConfig) -> None:
    """Run the job without Ray."""

    def steps(*args: Any, **options: Any) -> Any:
        return run_steps(*args, **options, execute=in_process)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_wit, "run_steps", steps)
        build_wit.main(config)


def addresses() -> dict[str, str]:
    """Of the hosts."""
    return dict(zip(HOSTS, itertools.repeat("127.0.0.1"), strict=False))
