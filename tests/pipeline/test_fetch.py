"""The client below the download stage: addresses, answers, clocks, memory and manners, against a real server."""

import asyncio
import gzip
import ssl
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from aiohttp import web

from pipeline import addresses, answers, fetch
from pipeline.answers import Failed, Unpacker
from pipeline.config import DownloadConfig
from pipeline.errors import InputError
from tests.pipeline.loopback import Handler, breaks, in_turn, say, serve, stream

TLS = ssl.create_default_context()


def get(config: DownloadConfig, *urls: str) -> list[bytes | str]:
    """The body at each URL, or the reason, all asked at once."""

    async def one(client: fetch.Client, url: str) -> bytes | str:
        try:
            with fetch.Places() as held:
                return bytes(await client.fetch(url, held))
        except Failed as failure:
            return failure.reason

    async def everything() -> list[bytes | str]:
        async with fetch.Client(config, TLS) as client:
            return await asyncio.gather(*(one(client, url) for url in urls))

    return asyncio.run(everything())


PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("0.0.0.0", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1"),
    *("2001::1", "2001:db8::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1", "100::1"),
    *("2130706433", "0x7f.1", "0177.0.0.1", "localhost", "", "1.1.1.1 "),
]


@pytest.mark.parametrize(("address", "expected"), [*((a, True) for a in PUBLIC), *((a, False) for a in NOT_PUBLIC)])
def test_only_addresses_of_the_public_internet_are_public(address, expected):
    assert addresses.public(address) is expected


def test_a_name_is_as_public_as_its_address():
    async def look() -> None:
        resolver = addresses.Resolver(5.0)
        for host in ("localhost", "127.1", "0x7f000001", "2130706433"):
            with pytest.raises(addresses.NotPublic):
                await resolver.lookup(host, 80)
        with pytest.raises(OSError, match=r"no answer for a\.\.b"):
            await resolver.lookup("a..b", 80)
        await resolver.close()

    asyncio.run(look())


def test_the_socket_itself_refuses_what_the_lookup_should_have(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 a.test B.test # ours\n\n# none\n::1 c.test\n127.0.0.9 a.test\n")
    names = addresses.read_hosts(str(hosts))
    assert names == {"a.test": "127.0.0.1", "b.test": "127.0.0.1", "c.test": "::1"}

    async def check() -> None:
        resolver = addresses.Resolver(1.0, names, 8080)
        (found,) = await resolver.lookup("a.test", 443)
        assert found[-1] == ("127.0.0.1", 8080)
        resolver.socket((2, 1, 6, "", ("127.0.0.1", 8080))).close()
        for place in (("127.0.0.1", 8081), ("127.0.0.9", 8080), ("169.254.169.254", 80)):
            with pytest.raises(addresses.NotPublic):
                resolver.socket((2, 1, 6, "", place))
        await resolver.close()

    asyncio.run(check())


def test_a_hosts_file_that_is_none_is_a_mistake_of_the_user(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the hosts file .*nowhere: No such file"):
        addresses.read_hosts(str(tmp_path / "nowhere"))
    (tmp_path / "hosts").write_text("a.test 127.0.0.1\n")
    with pytest.raises(InputError, match=r"hosts:1: expected an address and names, found 'a\.test 127\.0\.0\.1'"):
        addresses.read_hosts(str(tmp_path / "hosts"))


MOVES = {
    "/b": "http://a.test/b",
    "b?x=1#here": "http://a.test/x/b?x=1",
    "//B.test:80/c": "http://b.test/c",
    "HTTPS://b.test/ü": "https://b.test/%C3%BC",
    "http://0x7f.1/": "http://127.0.0.1/",
    "ftp://a.test/": "address",
    "data:image/png;base64,AAAA": "address",
    "file:///etc/passwd": "address",
    "http://": "redirect",
    "http://a b/": "redirect",
    "": "redirect",
    None: "redirect",
}


@pytest.mark.parametrize(("location", "target"), MOVES.items())
def test_a_redirect_leads_where_a_browser_would_go_or_nowhere(location, target):
    try:
        found = answers.follow("http://a.test/x/y", location)
    except Failed as failure:
        found = failure.reason
    assert found == target


def test_retry_after_is_seconds_or_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert answers.retry_after({"Retry-After": "7"}) == 7
    assert 25 < answers.retry_after({"Retry-After": later}) <= 30
    for odd in ("", "-5", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "²", "1e9"):
        assert answers.retry_after({"Retry-After": odd}) == 0
    assert answers.retry_after({}) == 0


def test_a_length_is_a_number_or_none():
    assert answers.length_of({"Content-Length": "70"}) == 70
    assert answers.length_of({"Content-Length": "9" * 5000}) > 10**19
    for odd in ("", "-1", "1.5", "²", "5, 5", "x"):
        assert answers.length_of({"Content-Length": odd}) == 0
    assert answers.length_of({}) == 0


@pytest.mark.parametrize("seed", range(10))
def test_unpacking_is_the_same_in_any_pieces_and_stops_at_the_limit(seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 4, int(rng.integers(1, 50_000)), dtype=np.uint8).tobytes()
    for pack, encoding in [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (bytes, ""), (bytes, "gzip")]:
        packed, cuts = pack(data), np.sort(rng.integers(0, len(data), 5)).tolist()
        for limit in (len(data), len(data) // 2):
            unpacker = Unpacker(encoding, limit)
            for start, end in zip([0, *cuts], [*cuts, len(packed)], strict=True):
                if not unpacker.feed(packed[start:end]):
                    break
            assert len(unpacker.data) <= limit + 1 or pack is bytes
            assert unpacker.data[: limit + 1] == data[: limit + 1]


def test_a_host_delay_spaces_requests_out(tmp_path):
    times = []

    async def note(request: web.BaseRequest) -> web.Response:
        times.append(time.monotonic())
        return web.Response(body=b"x")

    with serve({f"/{n}": note for n in range(5)}, tmp_path) as site:
        start = time.monotonic()
        get(site.config(host_delay_seconds=0.1, robots=False), *(f"http://site.test/{n}" for n in range(5)))
    assert all(found >= start + 0.1 * n for n, found in enumerate(sorted(times)))


def test_retry_after_closes_the_host_for_everyone_and_has_a_bound(tmp_path):
    times: dict[str, list[float]] = {"busy": [], "other": []}

    def note(name: str, handler: Handler) -> Handler:
        async def noted(request: web.BaseRequest) -> web.StreamResponse:
            times[name].append(time.monotonic())
            return await handler(request)

        return noted

    busy = say(status=503, Retry_After="1")
    with serve({"/busy": note("busy", in_turn(busy, say(b"yes"))), "/other": note("other", say(b"x"))}, tmp_path) as site:
        config = site.config(concurrency_per_host=1, robots=False)
        assert get(config, "http://site.test/busy", "http://site.test/other") == [b"yes", b"x"]
    assert times["other"][0] - times["busy"][0] > 0.95
    assert times["busy"][1] - times["busy"][0] > 0.95
    with serve({"/busy": say(status=429, Retry_After="3600")}, tmp_path) as site:
        start = time.monotonic()
        assert get(site.config(robots=False), "http://site.test/busy") == ["http_4xx"]
        assert time.monotonic() - start < 5, "nobody waits an hour"
        assert site.times_asked("/busy") == 1


def test_the_deadline_holds_for_all_redirects_together(tmp_path):
    async def late(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(status=302, headers={"Location": f"/{int(request.path[1:]) + 1}"})

    with serve({f"/{n}": late for n in range(9)}, tmp_path) as site:
        config = site.config(timeout_seconds=0.5, max_redirects=8, max_retries=0, robots=False)
        assert get(config, "http://site.test/0") == ["timeout"]
    assert len(site.asked) <= 3, "each takes 0.2 of the 0.5 s"


def test_a_slow_body_passes_while_it_keeps_the_minimum_rate(tmp_path):
    async def steady(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(20):
            await response.write(bytes(200))
            await asyncio.sleep(0.05)
        return response

    with serve({"/steady": steady, "/drip": stream(bytes(200), 0.05)}, tmp_path) as site:
        easy, strict = ({"stall_seconds": 0.5, "min_bytes_per_second": rate, "max_retries": 0} for rate in (1000.0, 20_000.0))
        assert get(site.config(**easy), "http://site.test/steady") == [bytes(4000)]
        assert get(site.config(**strict), "http://site.test/steady", "http://site.test/drip") == ["timeout"] * 2


def test_many_large_bodies_wait_for_room_and_are_not_blamed_for_it(tmp_path):
    large_bytes, places = fetch.STEPS[-1]
    body = bytes(large_bytes + 50_000)
    held, most, lock = 0, 0, threading.Lock()
    num_bodies = 3 * places

    async def one(client: fetch.Client, url: str) -> None:
        nonlocal held, most
        with fetch.Places() as held_places:
            assert await client.fetch(url, held_places) == body
            with lock:
                held += 1
                most = max(most, held)
            await asyncio.sleep(1.1)  # the last ones wait longer than the deadline
            with lock:
                held -= 1

    async def everything(config: DownloadConfig) -> None:
        async with fetch.Client(config, TLS) as client, asyncio.TaskGroup() as group:
            for n in range(num_bodies):
                group.create_task(one(client, f"http://site.test/{n}"))

    with serve({f"/{n}": say(body) for n in range(num_bodies)}, tmp_path) as site:
        config = site.config(concurrency_per_host=num_bodies, timeout_seconds=2.0, stall_seconds=1.0, max_retries=0, robots=False)
        asyncio.run(everything(config))
    assert most == places


def test_robots_txt_is_read_to_its_limit_and_through_redirects(tmp_path):
    rules = b"User-agent: *\nDisallow: /a\n" + b"# filler\n" * 60_000 + b"Disallow: /b\n"
    routes = {
        "/robots.txt": say(status=301, Location="http://rules.test/one"),
        "rules.test/one": say(status=302, Location="/two"),
        "rules.test/two": say(rules),
        "round.test/robots.txt": say(status=302, Location="/robots.txt"),
        "closed.test/robots.txt": say(status=429),
        "/a": say(b"a"),
        "/b": say(b"b"),
    }
    names = {name: "127.0.0.1" for name in ("rules.test", "round.test", "closed.test")}
    with serve(routes, tmp_path, names) as site:
        urls = [f"http://{host}.test/{path}" for host in ("site", "round", "closed") for path in "ab"]
        assert get(site.config(), *urls) == ["robots", b"b", b"a", b"b", "robots", "robots"]
        assert get(site.config(robots=False), *urls) == [b"a", b"b"] * 3


def test_a_body_that_breaks_off_is_a_connection_that_failed(tmp_path):
    with serve({"/torn": breaks, "/once": in_turn(breaks, say(b"whole"))}, tmp_path) as site:
        assert get(site.config(robots=False), "http://site.test/torn", "http://site.test/once") == ["connect", b"whole"]
        assert site.times_asked("/torn") == 3


def test_the_server_sees_the_path_as_it_is_written(tmp_path):
    paths = ["/a?", "/a?", "/a??", "/a?b=%2F+c&d", "/%7Ea/%2e/b;c=[1]", "/a%20b|c"]
    with serve({}, tmp_path) as site:
        get(site.config(concurrency=1, robots=False), *(f"http://site.test{path}" for path in paths))
    assert site.targets == [path.replace("/%2e", "") for path in paths]
