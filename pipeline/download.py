"""Download: fetch each picture, politely and safely, and make it small.

in      balanced
out     images = balanced + schema.IMAGE_FIELDS, with the picture itself in the column `image`; schema.FETCHED for the log
drops   the network's: robots, dns, address, connect, tls, timeout, redirect, http_4xx, http_5xx, too_large, opt_out
        (answers.py); the picture's: not_an_image, bomb, too_small, aspect, decode (pictures.py); checked in that order
law     one row out for each row in, in the same order, each with a picture or a reason; a URL is fetched once a part,
        however many rows show it; the same web gives the same rows (but for the breaker, see fetch.py)
law     a failure that an outage of this machine explains is never a drop reason (outage.py)
law     a picture that its decoder dies of, or hangs on, is dropped as `decode`; the worker and the other pictures go on
cost    CPU: decode, resize and encode, about 80%; the network waits in one asyncio loop, pixels are worked on in
        num_decoders processes meanwhile. The pictures of the part that came out stay in memory until it is written
source  img2dataset, for the options and their meaning
"""

import asyncio
import ctypes
import ssl
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pyarrow as pa

from pipeline import answers, engine, fetch, hosts, outage, pictures, retries, schema, visits
from pipeline.answers import Failed
from pipeline.config import DownloadConfig
from pipeline.decoders import Decoders
from pipeline.manifest import Dataset, Manifest
from pipeline.pictures import Picture
from pipeline.stage import Input, Stage, Task
from pipeline.visits import Visit

DROPS = answers.DROPS + pictures.DROPS
M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE_BUFFER_BYTES = 1 << 20


async def picture_at(url: str, client: fetch.Client, decoders: Decoders) -> Picture | Failed:
    """The picture at `url`, or why there is none."""
    try:
        with fetch.Places() as held:
            made = await decoders.prepare(await client.fetch(url, held))
            return made if isinstance(made, Picture) else Failed(made)
    except Failed as failure:
        return failure


async def pictures_at(
    urls: Sequence[str], config: DownloadConfig, tls: ssl.SSLContext, decoders: Decoders, noted: dict[str, Visit]
) -> dict[str, Picture | Failed]:
    """What `picture_at` says of each URL, in the order in which they end; hosts side by side, so that a slow one does not
    hold up the others. `noted` takes how each was asked for."""
    queues: dict[str, deque[str]] = {}
    for url in urls:
        queues.setdefault(hosts.host(url), deque()).append(url)
    found: dict[str, Picture | Failed] = {}

    async def lane(client: fetch.Client, queue: deque[str]) -> None:
        while queue:
            url = queue.popleft()
            found[url] = await picture_at(url, client, decoders)

    async with decoders, fetch.Client(config, tls) as client, asyncio.TaskGroup() as group:
        for place in range(config.concurrency_per_host):
            for queue in queues.values():
                if place < len(queue):
                    group.create_task(lane(client, queue))
    noted |= client.visits
    return found


async def download(pairs: pa.Table, config: DownloadConfig, tls: ssl.SSLContext, decoders: Decoders) -> pa.Table:
    """Add the picture of each row and what is known of it, or the drop reason.

    tls: verifies https servers. decoders: where pixels are worked on
    """
    schema.check(pairs, schema.BALANCED, "download")
    urls = pairs["image_url"].to_pylist()
    noted: dict[str, Visit] = {}
    found = await outage.believed(
        list(dict.fromkeys(urls)), lambda some: pictures_at(some, config, tls, decoders, noted), reason_of, outage.Network(config)
    )
    fates = [found[url] for url in urls]
    pictures = [fate if isinstance(fate, Picture) else None for fate in fates]
    statuses = [fate.status or None if isinstance(fate, Failed) else None for fate in fates]
    keys = [key if picture else None for key, picture in zip(pairs["pair_id"].to_pylist(), pictures, strict=True)]
    table = pairs
    for field in [*schema.IMAGE_FIELDS, schema.IMAGE]:
        values = keys if field.name == "key" else [getattr(picture, field.name, None) for picture in pictures]
        table = table.append_column(field, pa.array(values, field.type))
    table = visits.add(table, noted).append_column(schema.HTTP_STATUS, pa.array(statuses, schema.HTTP_STATUS.type))
    return table.append_column(schema.DROP, pa.array(map(reason_of, fates), pa.string()))


def reason_of(fate: Picture | Failed) -> str | None:
    """The drop reason, one of DROPS."""
    return fate.reason if isinstance(fate, Failed) else None


def give_back_large_buffers() -> None:
    """Let glibc return what large bodies took as soon as they are gone; of this whole process.

    It learns from each that is freed to keep such buffers in its heap, up to 32 MB, where what is between them stays too: 60 MB
    at the worst that servers do (test_attacks.py). Other C libraries do nothing of the kind.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BUFFER_BYTES)


class Worker:
    """What one Ray actor holds: its decoding processes, and one TLS context for every connection."""

    def __init__(self, config: DownloadConfig, sides: Mapping[str, Dataset]):
        fetch.check_contact(config)
        self.config = config
        give_back_large_buffers()
        self.decoders = Decoders(config)
        weakref.finalize(self, self.decoders.close)
        self.tls = ssl.create_default_context()
        self.engine = engine.Engine(config, self.tls) if config.engine == "img2dataset" else None

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (pairs,) = tables
        if self.engine:
            return visits.add(self.engine(pairs), {})  # img2dataset does not say when it asked for what
        return asyncio.run(download(pairs, self.config, self.tls, self.decoders))


def plan(config: DownloadConfig, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each `pairs_per_part` rows of a part, once it is known who runs the crawler.

    A part holds all pairs of its hosts. Its tasks are a chain: one worker asks a host at a time, however many rows it has.
    """
    fetch.check_contact(config)
    engine.check(config)
    tasks = []
    for part in manifests[0].parts:
        starts = range(0, max(1, part.rows_out), config.pairs_per_part)
        for number, start in enumerate(starts):
            name = part.name if len(starts) == 1 else f"{part.name}-{number:04d}"
            rows = (start, min(part.rows_out, start + config.pairs_per_part))
            chain = "" if len(starts) == 1 else part.name
            tasks.append(Task(part=name, inputs=(Input(source=0, part=part.name, rows=rows),), chain=chain))
    return tasks


STAGE = Stage(
    name="download",
    version=4,
    shape="map",
    worker=Worker,
    writes=schema.IMAGES,
    tar=True,
    log=schema.FETCHED,
    plan=plan,
    again=retries.later,
)
