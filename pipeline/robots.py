"""What a site forbids: robots.txt and the X-Robots-Tag header.

in      the answer to GET /robots.txt of an origin; the X-Robots-Tag headers of an answer
out     whether the crawler may fetch a URL, or keep what it fetched
law     each origin's robots.txt is asked for once in the life of a Cache, however many tasks wait for it
source  RFC 9309 (read with protego); Google's "Robots meta tag and X-Robots-Tag specifications"; the opt-outs noai and
        noimageai

robots.txt that answers 4xx, or is redirected more than five times, forbids nothing. One that answers 5xx or 429 forbids
everything. Where the site cannot be reached at all, the failure itself is raised, and nothing is fetched either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from protego import Protego

from pipeline import hosts

MAX_ROBOTS_BYTES = 500 * 1024  # RFC 9309 section 2.5; what follows is not read
MAX_REDIRECTS = 5  # RFC 9309 section 2.3.1.2
ALL = "*"
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # directives that take a value
FORBID_NOTHING = ""
FORBID_EVERYTHING = "User-agent: *\nDisallow: /\n"


def product_token(user_agent: str) -> str:
    """The name that robots.txt and X-Robots-Tag know the crawler by: "wit-bot" of "wit-bot/1.0"."""
    return user_agent.split("/", 1)[0].strip().lower()


class Cache:
    """The rules of each origin, asked for when first needed.

    read   url of a robots.txt -> its text; FORBID_NOTHING or FORBID_EVERYTHING where its absence means that. What it
           raises is raised to everyone who waits for that origin.
    """

    def __init__(self, read: Callable[[str], Awaitable[str]], user_agent: str):
        self.read = read
        self.token = product_token(user_agent)
        self.rules: dict[str, asyncio.Task[Protego]] = {}

    async def allowed(self, url: str) -> bool:
        """Whether the origin of `url` lets this crawler fetch it."""
        return (await self.of(url)).can_fetch(url, self.token)

    async def crawl_delay(self, url: str) -> float:
        """Seconds between two requests that the origin of `url` asks for; 0 where it does not say."""
        return max(0.0, (await self.of(url)).crawl_delay(self.token) or 0.0)

    async def of(self, url: str) -> Protego:
        """The rules of the origin of `url`."""
        key = hosts.origin(url)
        if key not in self.rules:
            self.rules[key] = asyncio.create_task(self.load(key))
        rules = self.rules[key]
        # A waiter that runs out of time must not take the answer away from the others.
        return rules.result() if rules.done() else await asyncio.shield(rules)

    async def load(self, key: str) -> Protego:
        return Protego.parse(await self.read(f"{key}/robots.txt"))


def parse_date(text: str) -> datetime | None:
    """A date as RFC 822, RFC 850 or ISO 8601 write it; UTC where no zone is given; None where it is none of them."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text.strip())
        except (ValueError, IndexError, OverflowError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


def directives(header: str) -> list[tuple[str, str, str]]:
    """(agent, directive, value) of one X-Robots-Tag header; agent "*" where none is named; lower case but for values.

    An agent speaks for all that follows it in its header. A date may hold a comma and colons:
    "bot: noindex, unavailable_after: Wed, 25 Jun 2025 15:00:00 GMT, noai" has three directives.
    """
    found, agent = [], ALL
    pieces = header.split(",")
    while pieces:
        piece = pieces.pop(0).strip()
        name, colon, value = piece.partition(":")
        if colon and name.strip().lower() not in VALUED:
            agent = name.strip().lower()
            name, colon, value = value.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name == "unavailable_after" and pieces and parse_date(value) is None and parse_date(f"{value},{pieces[0]}"):
            value = f"{value},{pieces.pop(0)}"
        if name:
            found.append((agent, name, value))
    return found


def opts_out(headers: Iterable[str], user_agent: str, disallowed: Iterable[str], now: datetime) -> bool:
    """Whether X-Robots-Tag headers ask this crawler to leave the picture alone.

    True for a directive of `disallowed`, and for an unavailable_after that has passed or cannot be read, that is meant
    for every agent or for the product token of `user_agent`.  now: with a time zone
    """
    unwanted, me = {name.lower() for name in disallowed}, product_token(user_agent)
    for header in headers:
        for agent, name, value in directives(header):
            if agent not in (ALL, me):
                continue
            if name in unwanted:
                return True
            if name == "unavailable_after":
                date = parse_date(value)
                if date is None or date <= now:
                    return True
    return False
