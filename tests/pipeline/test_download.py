"""The download stage against a real server: every reason, the row law, retries, safety and manners."""

import asyncio
import gzip
import io
import socket
import ssl
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
import trustme
from aiohttp import web
from PIL import Image

from pipeline import download, hashing, schema
from pipeline.config import DownloadConfig, wit
from pipeline.download import DROPS, STAGE, Worker
from pipeline.errors import InputError
from tests.pipeline.loopback import hang, in_turn, pairs, say, serve, stream


def picture(width: int = 90, height: int = 60, kind: str = "JPEG", seed: int = 0) -> bytes:
    """A small file with soft shapes."""
    cells = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has hardly any pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


GOOD = picture()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="90" height="60"/></svg>'
FAR = "unavailable_after: Wed, 25 Jun 2199 15:00:00 GMT"

# path, what the server says, the reason (None: kept)
CASES = [
    ("/good.jpg", say(GOOD), None),
    ("/good.png", say(picture(kind="PNG")), None),
    ("/as-text.jpg", say(GOOD, Content_Type="text/html"), None),
    ("/packed.jpg", say(gzip.compress(GOOD), Content_Encoding="gzip"), None),
    ("/not-really-packed.jpg", say(GOOD, Content_Encoding="gzip"), None),
    ("/once-500.jpg", in_turn(say(status=500), say(GOOD)), None),
    ("/busy.jpg", in_turn(say(status=429, Retry_After="0"), say(GOOD)), None),
    ("/moved.jpg", say(status=301, Location="good.jpg#here"), None),
    ("/other-agents.jpg", say(GOOD, X_Robots_Tag=f"otherbot: noindex, {FAR}"), None),
    ("/until-2199.jpg", say(GOOD, X_Robots_Tag=FAR), None),
    ("/to-loopback.jpg", say(status=302, Location="http://127.0.0.1/good.jpg"), "address"),
    ("/to-metadata.jpg", say(status=302, Location="http://169.254.169.254/latest"), "address"),
    ("/to-file.jpg", say(status=302, Location="file:///etc/hostname"), "address"),
    ("/drip.jpg", stream(b"\xff", 0.05), "timeout"),
    ("/hang.jpg", hang, "timeout"),
    ("/loop-a.jpg", say(status=302, Location="/loop-b.jpg"), "redirect"),
    ("/loop-b.jpg", say(status=302, Location="/loop-a.jpg"), "redirect"),
    ("/nowhere.jpg", say(status=302), "redirect"),
    ("/not-modified.jpg", say(status=304), "redirect"),
    ("/hop-0.jpg", say(status=307, Location="/hop-1.jpg"), "redirect"),
    *[(f"/hop-{n}.jpg", say(status=307, Location=f"/hop-{n + 1}.jpg"), None) for n in range(1, 6)],
    ("/hop-6.jpg", say(GOOD), None),
    ("/missing.jpg", say(status=404), "http_4xx"),
    ("/gone.jpg", say(status=410), "http_4xx"),
    ("/broken.jpg", say(status=500), "http_5xx"),
    ("/endless.jpg", stream(GOOD * 10), "too_large"),
    ("/long.jpg", say(GOOD + bytes(200_000)), "too_large"),
    ("/unpacks.jpg", say(gzip.compress(GOOD + bytes(50_000_000)), Content_Encoding="gzip"), "too_large"),
    ("/noai.jpg", say(GOOD, X_Robots_Tag="NoAI"), "opt_out"),
    ("/for-us.jpg", say(GOOD, X_Robots_Tag="wit-bot: noindex"), "opt_out"),
    ("/past.jpg", say(GOOD, X_Robots_Tag="unavailable_after: Wed, 25 Jun 2014 15:00:00 GMT"), "opt_out"),
    ("/page.jpg", say(b"<html>not here</html>", Content_Type="image/jpeg"), "not_an_image"),
    ("/drawing.svg", say(SVG, Content_Type="image/svg+xml"), "not_an_image"),
    ("/empty.jpg", say(b"", Content_Type="image/jpeg"), "not_an_image"),
    ("/bomb.png", say(png_header(30_000, 30_000)), "bomb"),
    ("/pixel.png", say(picture(1, 1, "PNG")), "too_small"),
    ("/banner.jpg", say(picture(600, 40)), "aspect"),
    ("/torn.jpg", say(GOOD[: len(GOOD) // 2]), "decode"),
    ("/torn-one-byte.jpg", say(GOOD[:-1]), "decode"),
    ("/torn.png", say(picture(kind="PNG")[:-30]), "decode"),
]
# url, robots.txt of its host, the reason
HOSTS = [
    ("http://closed.test/good.jpg", say(b"User-agent: *\nDisallow: /"), "robots"),
    ("http://not-us.test/good.jpg", say(b"User-agent: wit-bot\nDisallow: /good\n\nUser-agent: *\nDisallow:"), "robots"),
    ("http://not-them.test/good.jpg", say(b"User-agent: otherbot\nDisallow: /"), None),
    ("http://sick.test/good.jpg", say(status=503), "robots"),
    ("http://to-closed.test/leave.jpg", say(status=404), "robots"),
    ("http://unknown.test/good.jpg", None, "dns"),
    ("http://refused.test/good.jpg", None, "connect"),
    ("https://site.test/good.jpg", None, "tls"),
    ("http://0x7f.0.0.1/good.jpg", None, "address"),
    ("http://[::ffff:127.0.0.1]/good.jpg", None, "address"),
]
SPELLINGS = [
    *("127.0.0.1", "2130706433", "0177.0.0.1", "0x7f000001", "127.1", "0.0.0.0"),
    *("[::1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fd00::1]"),
]


def run(config: DownloadConfig, urls: list[str]) -> pa.Table:
    return Worker(config, {})(pairs(urls))


@pytest.fixture(scope="module")
def fates(tmp_path_factory: pytest.TempPathFactory):
    """The rows of every case, and the server that they came from."""
    routes = {path: handler for path, handler, _ in CASES}
    names = [url.split("/")[2] for url, _, _ in HOSTS]
    for name, (_, rules, _) in zip(names, HOSTS, strict=True):
        if rules:
            routes[f"{name}/robots.txt"] = rules
    routes["to-closed.test/leave.jpg"] = say(status=302, Location="http://closed.test/good.jpg")
    addresses = {name: "127.0.0.1" for name in names if name.endswith(".test") and name != "unknown.test"}
    urls = [f"http://site.test{path}" for path, _, _ in CASES] + [url for url, _, _ in HOSTS]
    urls.append(urls[0])  # the first picture once more, with another text
    with serve(routes, tmp_path_factory.mktemp("web"), {**addresses, "refused.test": "127.0.0.2"}) as site:
        config = site.config(max_image_bytes=100_000, concurrency_per_host=16, max_host_failures=1000)
        yield run(config, urls), urls, site


def test_every_link_meets_its_fate(fates):
    table, urls, _ = fates
    expected = [reason for *_, reason in CASES + HOSTS] + [None]
    found = dict(zip(urls, table["drop"].to_pylist(), strict=True))
    assert found == dict(zip(urls, expected, strict=True))
    assert set(expected) - {None} == set(DROPS), "each reason of the closed list is met at least once"


def test_rows_keep_their_order_and_a_dropped_row_has_no_picture(fates):
    table, urls, _ = fates
    schema.check(table, schema.join(schema.IMAGES, pa.schema([schema.IMAGE, schema.DROP])), "test")
    assert table.select(schema.BALANCED.names).equals(pairs(urls))
    for row in table.to_pylist():
        made = [row[name] for name in [*schema.IMAGE_FIELDS.names, "image"]]
        assert all(value is None for value in made) if row["drop"] else all(value is not None for value in made)
        if not row["drop"]:
            assert row["key"] == row["pair_id"]
            assert Image.open(io.BytesIO(row["image"])).size == (row["width"], row["height"])


def test_hashes_sizes_and_types_are_of_the_served_bytes(fates):
    rows = {row["image_url"]: row for row in fates[0].to_pylist()}
    for path, kind in [("/good.jpg", "JPEG"), ("/packed.jpg", "JPEG"), ("/good.png", "PNG")]:
        data, row = picture(kind=kind), rows[f"http://site.test{path}"]
        assert (row["sha256"], row["original_bytes"]) == (hashing.sha256(data), len(data))
        assert (row["original_width"], row["original_height"]) == (90, 60)
        assert row["media_type"] == f"image/{kind.lower()}"


def test_robots_txt_and_a_picture_that_two_rows_show_are_fetched_once(fates):
    site = fates[2]
    assert site.times_asked("/robots.txt") == 1
    assert site.times_asked("/good.png") == 1
    assert site.times_asked("/robots.txt", "closed.test") == 1
    assert not site.times_asked("/good.jpg", "closed.test")
    assert not site.times_asked("/good.jpg", "sick.test")


def test_only_what_may_succeed_is_tried_again(fates):
    site = fates[2]
    for path, times in [("/broken.jpg", 3), ("/hang.jpg", 3), ("/missing.jpg", 1), ("/torn.jpg", 1), ("/endless.jpg", 1)]:
        assert site.times_asked(path) == times, path
    assert site.times_asked("/once-500.jpg") == 2
    assert site.times_asked("/robots.txt", "sick.test") == 3


def test_the_server_learns_who_asks_and_never_gets_a_cookie(fates):
    headers = fates[2].headers["/good.png"]
    assert headers["User-Agent"] == "wit-bot/1.0 (+http://us.test/bot)"
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


def test_the_same_web_gives_the_same_rows(tmp_path):
    routes = {f"/{n}.jpg": say(picture(seed=n)) for n in range(30)}
    urls = [f"http://site.test/{n}.jpg" for n in range(40)]
    with serve(routes, tmp_path) as site:
        first = run(site.config(), urls)
        again = run(site.config(concurrency=3, concurrency_per_host=1), urls[::-1])
    others = ["text", "pair_id", "key", "link_index", "query_ids", *schema.FETCHED.names]
    assert first.take(list(range(39, -1, -1))).drop_columns(others).equals(again.drop_columns(others))


def test_no_connection_is_made_to_an_address_that_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        port = trap.getsockname()[1]
        routes = {f"/{n}.jpg": say(status=302, Location=f"http://{host}:{port}/") for n, host in enumerate(SPELLINGS)}
        with serve(routes, tmp_path) as site:
            urls = [f"http://site.test/{n}.jpg" for n in range(len(SPELLINGS))]
            urls += [f"http://{host}:{port}/{host}" for host in SPELLINGS]
            table = run(site.config(robots=False), urls)
        assert table["drop"].to_pylist() == ["address"] * len(urls)
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_no_more_than_concurrency_per_host_requests_reach_a_host_at_once(tmp_path):
    routes = {f"/{n}.jpg": say(GOOD) for n in range(40)}
    routes |= {f"/to-{n}.jpg": say(status=302, Location=f"http://a.test/{n}.jpg") for n in range(20)}
    urls = [f"http://{host}.test/{n}.jpg" for n in range(40) for host in "ab"]
    urls += [f"http://b.test/to-{n}.jpg" for n in range(20)]
    with serve(routes, tmp_path, {"a.test": "127.0.0.1", "b.test": "127.0.0.1"}) as site:
        table = run(site.config(concurrency_per_host=3), urls)
    assert table["drop"].null_count == len(urls)
    assert site.peak["a.test"] <= 3
    assert site.peak["b.test"] <= 3
    assert len(site.sockets) < 20, "connections are kept alive"


def test_a_slow_host_does_not_hold_up_the_others(tmp_path):
    async def after_all_others(request: web.BaseRequest) -> web.StreamResponse:
        while sum(host == "site.test" for host, _ in site.asked) < 50:
            await asyncio.sleep(0.01)
        return await say(GOOD)(request)

    routes = {f"/{n}.jpg": say(GOOD) for n in range(50)}
    routes |= {f"slow.test/{n}.jpg": after_all_others for n in range(50)}
    urls = [f"http://slow.test/{n}.jpg" for n in range(50)] + [f"http://site.test/{n}.jpg" for n in range(50)]
    with serve(routes, tmp_path, {"slow.test": "127.0.0.1"}) as site:
        table = run(site.config(concurrency=8, timeout_seconds=30, stall_seconds=30, robots=False), urls)
    assert table["drop"].null_count == len(urls)


def test_a_host_that_never_answers_is_given_up_and_the_others_are_not(tmp_path):
    routes = {f"/{n}.jpg": say(GOOD) for n in range(10)} | {f"slow.test/{n}.jpg": hang for n in range(50)}
    urls = [f"http://slow.test/{n}.jpg" for n in range(50)] + [f"http://site.test/{n}.jpg" for n in range(10)]
    with serve(routes, tmp_path, {"slow.test": "127.0.0.1"}) as site:
        config = site.config(timeout_seconds=0.5, max_host_failures=6, robots=False)
        table = run(config, urls)
    assert table["drop"].to_pylist() == ["timeout"] * 50 + [None] * 10
    assert 6 <= sum(host == "slow.test" for host, _ in site.asked) <= 6 + config.concurrency_per_host


def test_https_is_verified_and_works(tmp_path):
    authority = trustme.CA()
    server_tls, client_tls = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("site.test").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    urls = ["https://site.test/good.jpg", "https://other.test/good.jpg"]
    with serve({"/good.jpg": say(GOOD)}, tmp_path, {"other.test": "127.0.0.1"}, server_tls) as site:
        worker = Worker(site.config(), {})
        assert worker(pairs(urls))["drop"].to_pylist() == ["tls", "tls"], "nobody vouches for this certificate"
        worker.tls = client_tls
        assert worker(pairs(urls))["drop"].to_pylist() == [None, "tls"], "the certificate is another host's"


def test_an_empty_part_stays_empty(tmp_path):
    with serve({}, tmp_path) as site:
        table = run(site.config(), [])
    assert table.num_rows == 0
    schema.check(table, schema.join(schema.IMAGES, pa.schema([schema.IMAGE, schema.DROP])), "test")


def test_nobody_crawls_without_a_contact():
    with pytest.raises(InputError, match="contact_url is empty"):
        Worker(wit().download, {})
    with pytest.raises(InputError, match="contact_url is empty"):
        download.plan(wit().download, [])


@pytest.mark.parametrize("field", ["user_agent", "contact_url"])
def test_a_line_break_in_the_user_agent_is_no_header_of_its_own(field, tmp_path):
    with serve({}, tmp_path) as site, pytest.raises(InputError, match=r"holds what no line of a request may, found .*X: y"):
        Worker(site.config(**{field: "us\r\nX: y"}), {})


def test_a_table_that_is_not_balanced_is_refused(tmp_path):
    with serve({}, tmp_path) as site, pytest.raises(ValueError, match="download: no column 'image_url'"):
        Worker(site.config(), {})(pairs([]).drop_columns(["image_url"]))


def test_the_stage_says_what_it_writes():
    assert STAGE.tar
    assert STAGE.writes == schema.IMAGES
    assert len(set(DROPS)) == len(DROPS) == 16
