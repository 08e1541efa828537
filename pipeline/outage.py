"""Failures that are this machine's own and not the web's: its resolver is gone, its network is down.

in      what a first pass over the URLs of a part found, in the order in which they ended
out     the same, but that what failed in doubt was fetched again while the network was up
law     a failure of LOCAL is believed only if the network was up: a part that is finished holds no failure of an outage
        (Outage is raised where the network does not come back within outage_patience_seconds, and nothing is committed)
doubt   URLs whose host did not resolve and does now; URLs of MIN_HOSTS and more different hosts that ended one after
        another without any host answering in between
up      one of control_hosts resolves and takes a connection; they are asked only in doubt
cost    one more lookup for each host that does not resolve; two more passes over what is in doubt, mostly none

Without control_hosts, and with a hosts file, every failure is believed.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from pipeline import hosts
from pipeline.addresses import NotPublic, Resolver
from pipeline.answers import CONNECT, DNS, TIMEOUT
from pipeline.config import DownloadConfig, MiniDownloadConfig
from pipeline.errors import InputError

Fate = TypeVar("Fate")

LOCAL = (DNS, CONNECT, TIMEOUT)
MIN_HOSTS = 12
MAX_PASSES = 4
CONTROL_PORT = 443
MAX_PAUSE_SECONDS = 30.0


class Outage(InputError):
    """The network of this machine is down and did not come back in time."""


def silent(reasons: Mapping[str, str | None]) -> list[str]:
    """The URLs of each run of failures of LOCAL over MIN_HOSTS and more different hosts; reasons: in the order of their ends."""
    found: list[str] = []
    run: list[str] = []
    for url, reason in [*reasons.items(), ("", None)]:
        if reason in LOCAL:
            run.append(url)
            continue
        if len({hosts.host(one) for one in run}) >= MIN_HOSTS:
            found += run
        run = []
    return found


class Network:
    """The network of this machine, as its control hosts show it."""

    def __init__(self, config: DownloadConfig):
        has_hosts_file = isinstance(config, MiniDownloadConfig) and bool(config.hosts_file)
        self.controls = () if has_hosts_file else config.control_hosts
        self.config = config

    async def resolving(self, names: Sequence[str]) -> set[str]:
        """Those of the names that resolve now, to whatever address."""
        resolver = Resolver(self.config.connect_timeout_seconds)
        try:
            answers = await asyncio.gather(*(resolver.lookup(name, CONTROL_PORT) for name in names), return_exceptions=True)
        finally:
            await resolver.close()
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, NotPublic | socket.gaierror):
                raise answer
        return {name for name, answer in zip(names, answers, strict=True) if not isinstance(answer, socket.gaierror)}

    async def is_up(self) -> bool:
        """Whether a control host resolves and takes a connection."""
        answers = await asyncio.gather(*(self.reaches(name) for name in self.controls))
        return any(answers)

    async def reaches(self, name: str) -> bool:
        """Whether a control host can be connected to."""
        resolver = Resolver(self.config.connect_timeout_seconds)
        try:
            async with asyncio.timeout(2 * self.config.connect_timeout_seconds):
                *_, (address, port) = (await resolver.lookup(name, CONTROL_PORT))[0]
                _, writer = await asyncio.open_connection(address, port)
        except OSError:  # TimeoutError, NotPublic and gaierror too
            return False
        finally:
            await resolver.close()
        writer.close()
        return True

    async def wait(self) -> None:
        """Return once the network is up; Outage where it is not within outage_patience_seconds."""
        loop = asyncio.get_running_loop()
        pause_seconds, end = self.config.retry_seconds, loop.time() + self.config.outage_patience_seconds
        while not await self.is_up():
            left = end - loop.time()
            if left <= 0:
                raise Outage(
                    f"download: the network of {socket.gethostname()} is down: none of {', '.join(self.controls)} was reached "
                    f"for {self.config.outage_patience_seconds:.0f} s. This part is not committed, so that none of its failures "
                    "counts; mend resolver and network and run the same command again"
                )
            await asyncio.sleep(min(pause_seconds, left, MAX_PAUSE_SECONDS))
            pause_seconds *= 2

    async def doubtful(self, reasons: Mapping[str, str | None]) -> list[str]:
        """The URLs whose failures cannot be believed, after a pass over them; in the order of `reasons`."""
        unresolved = {hosts.host(url) for url, reason in reasons.items() if reason == DNS}
        now = await self.resolving(sorted(unresolved)) if unresolved else set()
        wrong = {url for url, reason in reasons.items() if reason == DNS and hosts.host(url) in now}
        if unresolved and not now and not await self.is_up():
            wrong |= {url for url, reason in reasons.items() if reason in LOCAL}
        wrong |= set(silent(reasons))
        return [url for url in reasons if url in wrong]


async def believed(
    urls: Sequence[str],
    fetch: Callable[[Sequence[str]], Awaitable[dict[str, Fate]]],
    reason_of: Callable[[Fate], str | None],
    network: Network,
) -> dict[str, Fate]:
    """What `fetch` finds at each URL, fetched again where it failed in doubt.  fetch: URLs -> fates in the order of their ends"""
    found = await fetch(urls)
    if not network.controls:
        return found
    doubt = await network.doubtful({url: reason_of(fate) for url, fate in found.items()})
    for _ in range(MAX_PASSES - 1):
        if not doubt:
            return found
        await network.wait()
        again = await fetch(doubt)
        found |= again
        # A failure between two moments at which the network was up is the web's.
        doubt = [] if await network.is_up() else [url for url in doubt if reason_of(again[url]) in LOCAL]
    if doubt:
        raise Outage(
            f"download: the network of {socket.gethostname()} goes down again and again; this part is not committed: mend it and "
            "run the same command again"
        )
    return found
