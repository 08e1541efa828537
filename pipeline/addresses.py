"""Names of hosts -> addresses that a crawler may connect to.

law     an address is given out only if it is globally routable unicast, or if the hosts file names it; a name in a
        hosts file is never asked of the DNS, and with a hosts file no other name resolves
source  IANA's special-purpose address registries, as Python's `ipaddress` carries them
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import InputError

GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")  # all of IPv6 that is global unicast today
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
RELAYS_V4 = ipaddress.IPv4Network("192.88.99.0/24")  # 6to4's relays: leads elsewhere
DNS_THREADS = 32
DNS_SECONDS = 300.0  # for which an answer is kept

Place = tuple[int, int, int, str, tuple[str, int]]  # as getaddrinfo tells it


class NotPublic(OSError):
    """The address, or every address of the name, is one that nobody on the public internet has."""


def public(address: str) -> bool:
    """Whether `address` is a globally routable unicast address, also inside an IPv6 that carries an IPv4 in it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None:
            return ip in GLOBAL_V6 and ip.is_global and not ip.is_multicast
        ip = inner
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and ip not in RELAYS_V4


def read_hosts(path: str) -> dict[str, str]:
    """Name -> address of a hosts(5) file; the first address of a name counts. InputError where it is no such file."""
    hosts: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"download: cannot read the hosts file {path}: {error.strerror}; check hosts_file") from error
    for number, line in enumerate(lines, 1):
        address, *names = line.split("#", 1)[0].split() or [""]
        if not address:
            continue
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise InputError(f"download: {path}:{number}: expected an address and names, found {line!r}") from error
        for name in names:
            hosts.setdefault(name.lower(), address)
    return hosts


def place(address: str, port: int) -> Place:
    """One address as `getaddrinfo` tells it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


class Resolver:
    """The only place from which the client gets an address.

    hosts, hosts_port   of the hosts file: names that resolve to these addresses, at that port; None: the DNS
    timeout_seconds     for one question to the DNS
    """

    def __init__(self, timeout_seconds: float, hosts: dict[str, str] | None = None, hosts_port: int = 0):
        self.timeout_seconds = timeout_seconds
        self.hosts, self.hosts_port = hosts, hosts_port
        self.exempt = {(address, hosts_port) for address in (hosts or {}).values()}
        self.answers: dict[str, tuple[float, list[str]]] = {}
        self.questions = asyncio.Semaphore(DNS_THREADS)
        self.threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")

    async def lookup(self, host: str, port: int) -> list[Place]:
        """The addresses of `host` that may be connected to. NotPublic where there is none such, socket.gaierror where
        the name has no address at all or the DNS does not say in time."""
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            pass
        else:
            return self.permitted(host, port, [host.strip("[]")])
        if self.hosts is not None:
            if host not in self.hosts:
                raise socket.gaierror(socket.EAI_NONAME, f"{host} is not in the hosts file")
            return [place(self.hosts[host], self.hosts_port)]
        return self.permitted(host, port, await self.ask(host))

    def permitted(self, host: str, port: int, addresses: list[str]) -> list[Place]:
        found = [place(address, port) for address in addresses if public(address)]
        if not found:
            raise NotPublic(f"{host} is at {', '.join(addresses)}")
        return found

    async def ask(self, host: str) -> list[str]:
        """The DNS's answer, or the one of the last few minutes."""
        loop = asyncio.get_running_loop()
        kept = self.answers.get(host)
        if kept and kept[0] > loop.time():
            return kept[1]
        async with self.questions:
            question = loop.run_in_executor(self.threads, socket.getaddrinfo, host, None, 0, socket.SOCK_STREAM)
            try:
                infos = await asyncio.wait_for(question, self.timeout_seconds)
            except (TimeoutError, UnicodeError) as error:  # UnicodeError: a label that no name can have
                raise socket.gaierror(socket.EAI_AGAIN, f"no answer for {host}") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        self.answers[host] = (loop.time() + DNS_SECONDS, addresses)
        return addresses

    async def close(self) -> None:
        """Let go of the threads; questions that are still open end by themselves."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    def socket(self, info: tuple) -> socket.socket:
        """Made before every connect, with the very address that is connected to: the last gate."""
        family, kind, protocol, _, end = info
        if not public(end[0]) and tuple(end[:2]) not in self.exempt:
            raise NotPublic(f"refused to connect to {end[0]}")
        return socket.socket(family, kind, protocol)
