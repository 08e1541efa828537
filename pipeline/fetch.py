"""A polite and safe HTTP client for pictures of strangers' servers.

in      canonical http(s) URLs
out     the bytes of an answer, or Failed with one of answers.DROPS
drops   robots, dns, address, connect, tls, timeout, redirect, http_4xx, http_5xx, too_large, opt_out
law     nothing is sent to an address that addresses.public refuses, at first or after a redirect; no attempt takes
        longer than timeout_seconds (the waits for a turn apart), and no body grows past max_image_bytes, packed or not;
        a host never sees more than concurrency_per_host requests at once, and its Crawl-delay between two of them; so it is
        over a whole cluster, for all pairs of a host are in one chain of parts (download.plan). A redirect from a host of
        another part is the exception
cost    one connection kept alive for each running request; bodies in memory are bounded (STEPS): a worker whose 256
        servers all send 19 MB or without an end stays under 500 MB (test_attacks.py)
source  RFC 9110, RFC 9309

What may vary from run to run is what the web itself varies, and the breaker: after max_host_failures attempts in a row
that the host did not answer (dns, connect, tls, timeout, 429, 503), its remaining URLs get the last of these reasons
without being asked for. A host that fails always loses the same URLs; of one that fails at times, which URLs come too
late depends on the moment. Opt-out headers are obeyed before the body is read, so they win over a body that would have
been too large, unless Content-Length says so first.
"""

import asyncio
import errno
import ssl
from datetime import UTC, datetime

from pipeline import answers, hosts, retries, robots, wire
from pipeline.addresses import Resolver, read_hosts
from pipeline.answers import HTTP_4XX, HTTP_5XX, REDIRECT, Failed, Moved, Unpacker
from pipeline.config import DownloadConfig, MiniDownloadConfig
from pipeline.errors import InputError
from pipeline.visits import Visit
from pipeline.wire import Connection

OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # this machine's trouble, no server's
# How many bodies may be larger than so many bytes at once: what grows over a step waits for a place on it.
STEPS = ((64 << 10, 48), (512 << 10, 8), (3 << 20, 2))


class Host:
    """What is known about one host: its turns, when it may be asked again, and whether it is given up."""

    def __init__(self, config: DownloadConfig):
        self.turns = asyncio.Semaphore(config.concurrency_per_host)
        self.delay_seconds = config.host_delay_seconds
        self.crawl_delay_seconds = 0.0  # as robots.txt asks
        self.max_wait_seconds = config.max_host_wait_seconds
        self.waited_seconds = 0.0
        self.max_failures = config.max_host_failures
        self.free_at = 0.0  # loop time
        self.failures = 0  # in a row
        self.lost: str | None = None  # the reason, once given up

    async def wait(self) -> None:
        """With one of its turns: wait until the host may be asked once more. Failed where it is given up, or asks for a pace that
        would take for ever."""
        loop = asyncio.get_running_loop()
        while (pause := self.free_at - loop.time()) > 0 and not self.lost:
            if self.waited_seconds + self.crawl_delay_seconds > self.max_wait_seconds:
                raise Failed(answers.ROBOTS)
            await asyncio.sleep(pause)
        self.waited_seconds += self.crawl_delay_seconds
        self.free_at = loop.time() + max(self.delay_seconds, self.crawl_delay_seconds)
        if self.lost:
            raise Failed(self.lost)

    def failed(self, failure: Failed) -> Failed:
        """Count `failure` and give it back; after max_failures in a row the host is given up for its reason."""
        self.failures += 1
        if self.failures >= self.max_failures:
            self.lost = failure.reason
        return failure

    def close_for(self, seconds: float) -> None:
        """Ask nothing more of the host for so long."""
        self.free_at = max(self.free_at, asyncio.get_running_loop().time() + seconds)


def check_contact(config: DownloadConfig) -> None:
    """InputError unless the owners of the servers can find out who runs the crawler, by a line that a request may hold."""
    if not config.contact_url and not isinstance(config, MiniDownloadConfig):
        raise InputError(
            "download: contact_url is empty, expected the page or address where site owners reach whoever runs this "
            "crawler (it is put into the user agent); set --download.contact-url"
        )
    if not user_agent(config).isprintable():
        raise InputError(
            f"download: user_agent or contact_url holds what no line of a request may, found {user_agent(config)!r}; set "
            "--download.user-agent and --download.contact-url without line breaks"
        )


def user_agent(config: DownloadConfig) -> str:
    """As servers see it: the name and who is behind it."""
    return f"{config.user_agent} (+{config.contact_url})"


class Places:
    """What stands for a picture, its place among the running fetches and those for its memory, until it is done with."""

    def __init__(self) -> None:
        self._taken: list[asyncio.Semaphore] = []

    def __enter__(self) -> "Places":
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()

    async def take(self, place: asyncio.Semaphore) -> None:
        """Wait for a place."""
        await place.acquire()
        self._taken.append(place)

    def give_back(self) -> None:
        """All of them."""
        while self._taken:
            self._taken.pop().release()


class Client:
    """The connections of one part:

        async with Client(config, tls) as client:
            with Places() as held:
                body = await client.fetch(url, held)

    visits: what was asked and answered, by the URL given to `fetch`; robots.txt is not noted
    """

    def __init__(self, config: DownloadConfig, tls: ssl.SSLContext):
        self.config = config
        self.visits: dict[str, Visit] = {}
        self.hosts: dict[str, Host] = {}
        self.robots = robots.Cache(self.read_robots, config.user_agent)
        self.running = asyncio.Semaphore(config.concurrency)
        self.steps = [(num_bytes, asyncio.Semaphore(places)) for num_bytes, places in STEPS]
        names, port = None, 0
        if isinstance(config, MiniDownloadConfig) and config.hosts_file:
            names, port = read_hosts(config.hosts_file), config.hosts_port
        self.resolver = Resolver(config.connect_timeout_seconds, names, port)
        fields = {"User-Agent": user_agent(config), "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}
        self.connections = wire.Connections(self.resolver, tls, fields, config.connect_timeout_seconds, config.concurrency)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.connections.close()
        await self.resolver.close()

    async def fetch(self, url: str, held: Places) -> bytearray:
        """The body at `url`; `held` takes what stands for it until the caller is done with it. Failed."""
        visit = self.visits[url] = Visit()
        try:
            return await self.get(answers.follow(url, url), held, visit)
        finally:
            visit.end()

    async def get(self, url: str, held: Places, visit: Visit | None) -> bytearray:
        """The body at `url`, tried again where that may help; `held` takes what stands for its memory.

        visit: where the requests for a picture are noted; None: it is a robots.txt
        """
        for attempt in range(self.config.max_retries + 1):
            try:
                return await self.walk(url, held, visit)
            except Failed as failure:
                held.give_back()
                if not failure.retry or attempt == self.config.max_retries:
                    raise
                first_seconds = self.config.retry_seconds
                backoff = retries.pause_seconds(url, failure.reason, failure.status, attempt, first_seconds)
                pause_seconds = max(backoff, failure.pause_seconds)
            await asyncio.sleep(pause_seconds)
        raise AssertionError("the last attempt returns or raises")

    async def walk(self, url: str, held: Places, visit: Visit | None) -> bytearray:
        """One attempt: `url` and where it redirects to."""
        seen, seconds = {url}, self.config.timeout_seconds
        for _ in range(1 + (self.config.max_redirects if visit else robots.MAX_REDIRECTS)):
            host = self.host(url)
            if self.config.robots and visit:
                if not await self.robots.allowed(url):
                    raise Failed(answers.ROBOTS)
                host.crawl_delay_seconds = max(host.crawl_delay_seconds, await self.robots.crawl_delay(url))
            async with host.turns:
                await host.wait()
                if visit:  # who waits for a turn takes no place: slow hosts would hold up all others
                    await held.take(self.running)
                loop = asyncio.get_running_loop()
                start = loop.time()
                try:
                    return await self.exchange(url, host, seconds, held, visit)
                except Moved as moved:
                    held.give_back()
                    url = answers.follow(url, moved.location)
                    seconds -= loop.time() - start
            if url in seen or seconds <= 0:
                raise Failed(REDIRECT if url in seen else answers.TIMEOUT)
            seen.add(url)
        raise Failed(REDIRECT)

    def host(self, url: str) -> Host:
        """What is known about the host of `url`."""
        name = hosts.host(url)
        if name not in self.hosts:
            self.hosts[name] = Host(self.config)
        return self.hosts[name]

    async def exchange(self, url: str, host: Host, seconds: float, held: Places, visit: Visit | None) -> bytearray:
        """One request and its answer, within so many seconds; Failed or Moved. Counts for the host's breaker."""
        if visit:
            visit.ask(url)
        try:
            async with asyncio.timeout(seconds) as clock:
                connection = await self.connections.ask(url)
                try:
                    if visit:
                        visit.hear(connection.status, connection.headers)
                    self.judge(connection, host)
                    return await self.take(connection, clock, held, for_robots=visit is None)
                finally:
                    self.connections.give_back(connection)
        except OSError as error:
            if error.errno in OURS:
                raise
            reason = answers.reason_of(error)
            raise host.failed(Failed(reason, retry=retries.policy(reason).now)) from error

    def judge(self, answer: Connection, host: Host) -> None:
        """Failed or Moved unless the status says that a body worth having follows."""
        status = answer.status
        reason = {3: REDIRECT, 4: HTTP_4XX}.get(status // 100, HTTP_5XX)
        if status in answers.BUSY:
            pause_seconds = answers.retry_after(answer.headers)
            host.close_for(min(pause_seconds, answers.MAX_PAUSE_SECONDS))
            raise host.failed(Failed(reason, retry=True, pause_seconds=pause_seconds, status=status))
        host.failures = 0
        if status in answers.FOLLOWED:
            raise Moved(answer.headers.get("Location"))
        if not 200 <= status < 300:
            raise Failed(reason, retry=retries.policy(reason, status).now, status=status)

    async def take(self, answer: Connection, clock: asyncio.Timeout, held: Places, for_robots: bool) -> bytearray:
        """The body of a good answer; Failed where it is too large or its owner opts out."""
        max_bytes = robots.MAX_ROBOTS_BYTES if for_robots else self.config.max_image_bytes
        if not for_robots:
            if answers.length_of(answer.headers) > max_bytes:
                raise Failed(answers.TOO_LARGE)
            tags = answer.headers.getall("X-Robots-Tag", [])
            if robots.opts_out(tags, self.config.user_agent, self.config.disallowed_directives, datetime.now(UTC)):
                raise Failed(answers.OPT_OUT)
        body = await self.read(answer, max_bytes, clock, held)
        if len(body) > max_bytes and not for_robots:
            body.clear()  # the exception's traceback would keep it
            raise Failed(answers.TOO_LARGE)
        del body[max_bytes:]
        return body

    async def read(self, answer: Connection, max_bytes: int, clock: asyncio.Timeout, held: Places) -> bytearray:
        """The unpacked body, or its first max_bytes + 1 bytes; TimeoutError where it comes too slowly.

        clock: stands at the end of all time that there is, and from now on at the end of what the next bytes may take, if earlier
        """
        loop, stall_seconds = asyncio.get_running_loop(), self.config.stall_seconds
        end, enough, received = clock.when() or 0.0, self.config.min_bytes_per_second * stall_seconds, 0
        unpacker = Unpacker(answer.headers.get("Content-Encoding", ""), max_bytes)
        clock.reschedule(min(end, loop.time() + stall_seconds))
        while chunk := await answer.piece():
            received += len(chunk)
            if received >= enough:
                clock.reschedule(min(end, loop.time() + stall_seconds))
                received = 0
            before = len(unpacker.data)
            if not unpacker.feed(chunk):
                break
            for num_bytes, places in self.steps:
                if before <= num_bytes < len(unpacker.data):
                    end += await self.wait_for_memory(places, clock, held)
        return unpacker.data

    async def wait_for_memory(self, places: asyncio.Semaphore, clock: asyncio.Timeout, held: Places) -> float:
        """Wait for one of the places, and tell how long; the clock stands still meanwhile, for the server is not to blame."""
        if not places.locked():
            await held.take(places)
            return 0.0
        loop = asyncio.get_running_loop()
        start, due = loop.time(), clock.when() or 0.0
        clock.reschedule(None)
        await held.take(places)
        waited = loop.time() - start
        clock.reschedule(due + waited)
        return waited

    async def read_robots(self, url: str) -> str:
        """The text of a robots.txt, or what its absence means; Failed where the site cannot be reached."""
        try:
            with Places() as held:
                return (await self.get(url, held, visit=None)).decode("utf-8", "replace")
        except Failed as failure:
            if failure.reason == HTTP_5XX or failure.status == 429:
                return robots.FORBID_EVERYTHING
            if failure.reason in (HTTP_4XX, REDIRECT):
                return robots.FORBID_NOTHING
            raise Failed(failure.reason) from failure  # tried often enough: nobody who waits for it tries again
