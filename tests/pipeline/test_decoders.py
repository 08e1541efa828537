"""The decoding processes: the same answers as without them; no file and no signal that ends one reaches the worker."""

import asyncio
import mmap
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline import images, pictures
from pipeline.config import DownloadConfig
from pipeline.decoders import Decoders
from pipeline.pictures import Picture
from tests.conftest import REPOSITORY
from tests.pipeline.odd_files import FILES, encode, mutate, shapes

CONFIG = DownloadConfig(image_size=32, min_image_size=1, max_aspect_ratio=1e9, max_image_pixels=1_000_000, decode_seconds=5)
GOOD = encode(shapes(), "JPEG")
EXPECTED = images.prepare(GOOD, CONFIG)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    pool = Decoders(CONFIG)
    yield pool
    pool.close()


async def prepare_all(pool: Decoders, *bodies: bytes) -> list[Picture | str]:
    async with pool:
        return await asyncio.gather(*map(pool.prepare, bodies))


def answers(config: DownloadConfig, *bodies: bytes) -> tuple[list[Picture | str], int]:
    """What new decoders say of the bodies, and how many of them died of one."""
    pool = Decoders(config)
    try:
        return asyncio.run(prepare_all(pool, *bodies)), pool.deaths
    finally:
        pool.close()


def large_png(side: int) -> bytes:
    """Slow to decode and quick to make: noise that repeats."""
    tile = np.random.default_rng(0).integers(0, 256, (64, side, 3), dtype=np.uint8)
    return encode(Image.fromarray(np.tile(tile, (side // 64, 1, 1))), "PNG", compress_level=1)


def test_every_kind_of_file_comes_out_as_without_the_processes(decoders: Decoders) -> None:
    images.guard_pillow(CONFIG.max_image_pixels)
    bodies = [data for data, _ in FILES.values()] + [b"", b"<html>", GOOD[:-9], encode(shapes(1200, 1200), "PNG")]
    expected = [images.prepare(body, CONFIG) for body in bodies]
    assert [expected[-1], *expected[-4:-1]] == ["bomb", "not_an_image", "not_an_image", "decode"]
    for _ in range(2):  # in one event loop after another
        assert asyncio.run(prepare_all(decoders, *bodies)) == expected
    assert decoders.deaths == 0


@pytest.mark.parametrize("fault", [signal.SIGSEGV, signal.SIGSTOP])
def test_a_decoder_that_dies_or_stops_takes_one_picture_with_it(fault: signal.Signals) -> None:
    config = replace(CONFIG, max_image_pixels=90_000_000, decode_seconds=1.0, num_decoders=2)
    slow = large_png(3000)

    async def scene(pool: Decoders) -> list[Picture | str]:
        async with pool:
            first, second = pool.decoders
            await first.start()
            await second.start()
            tasks = [asyncio.create_task(pool.prepare(body)) for body in (slow, GOOD, GOOD, GOOD)]
            await asyncio.sleep(0)  # the first has the slow one now
            os.kill(first.process.pid, fault)
            return await asyncio.gather(*tasks)

    pool = Decoders(config)
    try:
        assert asyncio.run(scene(pool)) == ["decode", *[EXPECTED] * 3]
        assert pool.deaths == 1
        assert asyncio.run(prepare_all(pool, GOOD, GOOD)) == [EXPECTED] * 2
    finally:
        pool.close()


STRANGER = """
import os, sys
from pipeline import decoder, images
from pipeline.pictures import Picture
real = images.prepare
def prepare(data, config):
    if len(data) == 11 and {what!r} == "fork":
        if os.fork():
            os._exit(1)  # the child keeps the channel open
        while True:
            pass
    if len(data) == 11:
        try:
            os.ftruncate(int(sys.argv[2]), 0)  # what the worker has mapped is gone
        except OSError:
            os._exit(3)
    return real(data, config)
decoder.images.prepare = prepare
if {what!r} == "talk":
    pack = decoder.pack
    decoder.pack = lambda result: pack(result) + bytes(100_000)  # more than anybody asked for
decoder.main()
"""


def let_in(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders are in a stranger's hands from now on."""
    (folder / "stranger.py").write_text(STRANGER.replace("{what!r}", repr(what)))
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        assert "AWS_SECRET_ACCESS_KEY" not in options["env"]
        start = command.index("-m")
        return real([*command[:start], str(folder / "stranger.py"), *command[start + 2 :]], **options)

    monkeypatch.setattr("pipeline.decoders.subprocess.Popen", popen)


@pytest.mark.parametrize("what", ["fork", "cut"])
def test_a_decoder_in_a_strangers_hands_cannot_hang_or_kill_its_worker(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    let_in(what, tmp_path, monkeypatch)
    config = replace(CONFIG, decode_seconds=0.3)
    results, deaths = answers(config, b"\xff\xd8\xff stranger"[:11], GOOD)
    assert (results, deaths) == (["decode", EXPECTED], 1)


def test_a_decoder_that_talks_unasked_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_in("talk", tmp_path, monkeypatch)

    async def scene(pool: Decoders) -> None:
        async with pool:
            for _ in range(2):
                assert await pool.prepare(GOOD) == EXPECTED
                await asyncio.to_thread(pool.decoders[0].process.wait, 30)

    pool = Decoders(CONFIG)
    try:
        asyncio.run(scene(pool))
    finally:
        pool.close()


def test_a_picture_may_take_so_much_cpu_and_so_much_memory_and_no_more() -> None:
    roomy = replace(CONFIG, max_image_pixels=90_000_000)
    big = large_png(3000)
    results, deaths = answers(roomy, big, GOOD)
    assert isinstance(results[0], Picture)
    assert (results[1], deaths) == (EXPECTED, 0)
    assert answers(replace(roomy, decode_seconds=0.1), big, GOOD) == (["decode", EXPECTED], 1)
    assert answers(replace(roomy, max_decode_bytes=30_000_000), big, GOOD) == (["bomb", EXPECTED], 0)


@pytest.mark.parametrize("megabytes", [5, 12, 20, 25, 30, 35])
def test_a_jpeg_that_wants_more_memory_than_it_may_is_a_bomb(megabytes: int) -> None:
    config = replace(CONFIG, max_image_pixels=90_000_000, max_decode_bytes=megabytes << 20, image_size=2500)
    flat = encode(Image.new("RGB", (9000, 9000), "teal"), "JPEG")
    (found, other), deaths = answers(config, flat, GOOD)
    assert (found, deaths) == ("bomb", 0)
    assert isinstance(other, Picture)


def test_a_decoder_killed_between_two_pictures_is_replaced(decoders: Decoders) -> None:
    assert asyncio.run(prepare_all(decoders, GOOD)) == [EXPECTED]
    decoders.decoders[0].process.kill()
    decoders.decoders[0].process.wait()
    assert asyncio.run(prepare_all(decoders, GOOD, GOOD)) == [EXPECTED] * 2


def test_a_picture_that_nobody_waits_for_leaves_no_answer_to_the_next(decoders: Decoders) -> None:
    async def scene() -> Picture | str:
        async with decoders:
            await decoders.prepare(GOOD)
            task = asyncio.create_task(decoders.prepare(encode(shapes(900, 900, 1), "PNG")))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return await decoders.prepare(GOOD)

    assert asyncio.run(scene()) == EXPECTED


def test_a_reply_that_no_decoder_would_give_is_not_believed() -> None:
    memory = mmap.mmap(-1, 4096)
    zeros, facts = (0,) * 5, (b"", b"")
    for start in ((len(pictures.DROPS) + 1, 0, 0), (0, len(pictures.KINDS), 0), (0, 0, 4097), (0, 0, 2**63)):
        with pytest.raises(ValueError, match="decoder: expected"):
            pictures.unpack(pictures.REPLY.pack(*start, *zeros, *facts), memory, 1)
    for reason in pictures.DROPS:
        assert pictures.unpack(pictures.pack(reason), memory, 1) == reason


def test_a_decoder_that_cannot_start_is_nobodys_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"decoders: /bin/false -m pipeline\.decoder does not start"):
        answers(CONFIG, GOOD)


PARENT = """
import asyncio, sys
from pipeline.config import DownloadConfig
from pipeline.decoders import Decoders

async def work(pool):
    async with pool:
        for one in pool.decoders:
            await one.start()
        print(*(one.process.pid for one in pool.decoders), flush=True)
        body = open(sys.argv[1], "rb").read()
        await asyncio.gather(*(pool.prepare(body) for _ in range(int(sys.argv[2]))))
        await asyncio.Event().wait()

asyncio.run(work(Decoders(DownloadConfig(num_decoders=2, decode_seconds=2.0))))
"""


@pytest.mark.parametrize("num_pictures", [0, 50])
def test_no_decoder_outlives_a_worker_that_is_killed(tmp_path, num_pictures: int) -> None:
    (tmp_path / "slow.png").write_bytes(large_png(3000))
    command = [sys.executable, "-c", PARENT, str(tmp_path / "slow.png"), str(num_pictures)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
        assert parent.stdout.read() == "", "no child holds what the worker wrote to"
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def broken_files(first_seed: int, num_seeds: int) -> list[bytes]:
    seeds = range(first_seed, first_seed + num_seeds)
    return [mutate(data, np.random.default_rng(seed)) for data, _ in FILES.values() for seed in seeds]


@pytest.mark.parametrize(
    "num_seeds",
    [pytest.param(60, marks=pytest.mark.timeout(120)), pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_thousands_of_broken_files_of_every_format_are_pictures_or_reasons(decoders: Decoders, num_seeds: int) -> None:
    seen: Counter[str] = Counter()
    for first in range(0, num_seeds, 20):
        for result in asyncio.run(prepare_all(decoders, *broken_files(1000 + first, 20))):
            seen["kept" if isinstance(result, Picture) else result] += 1
    assert set(seen) <= {"kept", *pictures.DROPS}
    assert seen["decode"] > num_seeds
    print(dict(seen), "deaths", decoders.deaths)
    assert asyncio.run(prepare_all(decoders, GOOD)) == [EXPECTED]
