"""robots.txt once an origin, and X-Robots-Tag with its agents, dates and lists."""

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline import robots
from pipeline.config import DownloadConfig

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DISALLOWED = DownloadConfig().disallowed_directives
PAST, FUTURE = "Wed, 25 Jun 2025 15:00:00 GMT", "Fri, 25 Jun 2027 15:00:00 GMT"

# headers of one answer, whether the picture may not be used
TAGS = [
    ([], False),
    ([""], False),
    (["noai"], True),
    (["NoImageAI"], True),
    (["all"], False),
    (["noarchive, nosnippet"], False),
    (["noarchive, noindex"], True),
    (["none"], True),
    (["noarchive", "noimageindex"], True),
    (["index , noai ,"], True),
    (["max-image-preview: large, noai"], True),
    (["max-snippet: 20"], False),
    (["noaix"], False),
    (["wit-bot: noai"], True),
    (["wit-bot : noai"], True),
    (["WIT-BOT: NOAI"], True),
    (["*: noai"], True),
    (["otherbot: noai"], False),
    (["otherbot: noindex, noai"], False),
    (["otherbot: all, wit-bot: noai"], True),
    (["wit-bot: all, otherbot: noai"], False),
    (["otherbot: noai", "noindex"], True),
    (["otherbot: noai", "wit-bot: nofollow"], False),
    ([f"unavailable_after: {PAST}"], True),
    ([f"unavailable_after: {FUTURE}"], False),
    ([f"noindex, unavailable_after: {FUTURE}"], True),
    ([f"unavailable_after: {FUTURE}, noai"], True),
    ([f"wit-bot: unavailable_after: {PAST}"], True),
    ([f"otherbot: unavailable_after: {PAST}, noai"], False),
    (["unavailable_after: 25 Jun 2010 15:00:00 PST"], True),
    (["unavailable_after: Wednesday, 25-Jun-25 15:00:00 GMT"], True),
    (["unavailable_after: 2025-06-25"], True),
    (["unavailable_after: 2027-06-25T15:00:00+02:00, noarchive"], False),
    (["UNAVAILABLE_AFTER : 2027-06-25"], False),
    (["unavailable_after: soon"], True),
    (["unavailable_after:"], True),
]


@pytest.mark.parametrize(("headers", "expected"), TAGS)
def test_x_robots_tag_is_read_as_its_writer_meant_it(headers, expected):
    assert robots.opts_out(headers, "wit-bot/1.0", DISALLOWED, NOW) is expected


def test_a_date_keeps_its_comma_and_the_list_goes_on_behind_it():
    header = f"bot: noindex, unavailable_after: {PAST}, noai, other: none"
    expected = [("bot", "noindex", ""), ("bot", "unavailable_after", PAST), ("bot", "noai", ""), ("other", "none", "")]
    assert robots.directives(header) == expected


@pytest.mark.parametrize("seed", range(200))
def test_no_header_and_no_robots_txt_breaks_the_reader(seed):
    rng = np.random.default_rng(seed)
    words = [
        "noai",
        "unavailable_after",
        ":",
        ",",
        " ",
        PAST,
        "99999",
        "wit-bot",
        "*",
        "User-agent",
        "\n",
        "Disallow: /",
        "$",
        "\x00",
        "é",
    ]
    text = "".join(rng.choice(words, int(rng.integers(1, 30))))
    robots.opts_out([text], "wit-bot/1.0", DISALLOWED, NOW)
    asyncio.run(allowed([f"http://a.test/{n}" for n in range(3)], {"http://a.test": text}))


async def allowed(urls: list[str], texts: dict[str, str]) -> tuple[list[bool], list[str]]:
    """What a cache over `texts` (origin -> robots.txt) says of each URL asked at once, and what it read."""
    read = []

    async def reader(url: str) -> str:
        read.append(url)
        await asyncio.sleep(0)
        return texts[url.removesuffix("/robots.txt")]

    cache = robots.Cache(reader, "wit-bot/1.0")
    return await asyncio.gather(*(cache.allowed(url) for url in urls)), read


RULES = """
User-agent: otherbot
Disallow: /

User-agent: wit-bot
Disallow: /private/
Allow: /private/shown/
Disallow: /*.gif$
"""


def test_the_longest_rule_for_our_name_decides():
    paths = {"/a.jpg": True, "/private/a.jpg": False, "/private/shown/a.jpg": True, "/a.gif": False, "/a.gif?x": True}
    found, _ = asyncio.run(allowed([f"http://a.test{path}" for path in paths], {"http://a.test": RULES}))
    assert found == list(paths.values())


def test_each_origin_is_asked_once_however_many_wait():
    urls = [f"{origin}/{n}" for n in range(20) for origin in ("http://a.test", "https://a.test", "http://a.test:8080")]
    found, read = asyncio.run(allowed(urls, {url.rsplit("/", 1)[0]: robots.FORBID_NOTHING for url in urls}))
    assert all(found)
    assert sorted(read) == ["http://a.test/robots.txt", "http://a.test:8080/robots.txt", "https://a.test/robots.txt"]


def test_a_failure_to_read_reaches_everyone_who_waits():
    async def fails(url: str) -> str:
        raise ConnectionError(url)

    async def ask() -> list[object]:
        cache = robots.Cache(fails, "wit-bot/1.0")
        return await asyncio.gather(*(cache.allowed("http://a.test/1") for _ in range(3)), return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(ask())] == [ConnectionError] * 3


def test_everything_and_nothing():
    for text, expected in [(robots.FORBID_EVERYTHING, False), (robots.FORBID_NOTHING, True)]:
        found, _ = asyncio.run(allowed(["http://a.test/", "http://a.test/a?b"], {"http://a.test": text}))
        assert found == [expected] * 2
