"""A part downloaded on a machine whose network dies: run in namespaces of its own, where this process is the whole internet.

    unshare --mount --net python -m tests.pipeline.outage_driver CASE RESULT.json

Names are answered by a DNS server on 127.0.0.1:53, which the real getaddrinfo asks; they lead to a public address that the
loopback device has here, so that nothing of the client is told to look away.

undisturbed   nothing happens
resolver      the DNS server answers SERVFAIL after NUM_GOOD names, until the control host has been asked for NUM_CONTROLS times
forever       as resolver, without an end
network       the device goes down after NUM_GOOD pictures and comes up five seconds later
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from aiohttp import web

from pipeline.config import DownloadConfig
from pipeline.download import Worker
from pipeline.errors import InputError
from tests.pipeline.loopback import pairs
from tests.pipeline.test_download import picture

ADDRESS, CONTROL = "93.184.216.34", "control.test"
NUM_HOSTS, PER_HOST, NUM_GOOD, NUM_CONTROLS = 40, 3, 12, 5
SERVFAIL, NXDOMAIN = 2, 3


def setup() -> None:
    """The device with a public address, and the file that names the resolver."""
    for command in ("ip link set lo up", f"ip address add {ADDRESS}/32 dev lo"):
        subprocess.run(command.split(), check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)


class Names:
    """The DNS server: hostN.test and the control host are at ADDRESS, every other name does not exist."""

    def __init__(self, case: str):
        self.case, self.good, self.controls = case, set[str](), 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def code(self, name: str) -> int:
        """Of the answer: 0, SERVFAIL or NXDOMAIN."""
        if self.case in ("resolver", "forever") and len(self.good) >= NUM_GOOD:
            self.controls += name == CONTROL
            if self.case == "forever" or self.controls < NUM_CONTROLS:
                return SERVFAIL
        if name == CONTROL:
            return 0
        if not name.startswith("host"):
            return NXDOMAIN
        self.good.add(name)
        return 0

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            data, client = self.socket.recvfrom(4096)
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1 : at + 1 + data[at]].decode())
                at += 1 + data[at]
            question, kind = data[12 : at + 5], struct.unpack("!H", data[at + 1 : at + 3])[0]
            code = self.code(".".join(labels))
            given = int(code == 0 and kind == 1)
            head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, given, 0, 0)
            body = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(ADDRESS) if given else b""
            self.socket.sendto(head + question + body, client)


class Site:
    """Every host's server."""

    def __init__(self, case: str):
        self.case, self.answered, self.body = case, 0, picture()
        ready = threading.Event()
        threading.Thread(target=asyncio.run, args=(self.serve(ready),), daemon=True).start()
        assert ready.wait(10)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """A picture; the device goes down when the time has come."""
        self.answered += 1
        if self.case == "network" and self.answered == NUM_GOOD:
            threading.Thread(target=self.pull).start()
        return web.Response(body=self.body, content_type="image/jpeg")

    def pull(self) -> None:
        """The network goes away for longer than the client waits for an answer and all its tries."""
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        time.sleep(5)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    async def serve(self, ready: threading.Event) -> None:
        """For ever."""
        runner = web.ServerRunner(web.Server(self.answer, access_log=None))
        await runner.setup()
        for port in (80, 443):
            await web.TCPSite(runner, ADDRESS, port, backlog=1024).start()
        ready.set()
        await asyncio.Event().wait()


def main(case: str, result: str) -> None:
    """Download one part and write down its reasons, or the error."""
    setup()
    names, _ = Names(case), Site(case)
    urls = [f"http://host{host}.test/{number}.jpg" for number in range(PER_HOST) for host in range(NUM_HOSTS)]
    urls.append("http://nowhere.test/a.jpg")
    config = DownloadConfig(
        contact_url="http://us.test/bot", robots=False, timeout_seconds=2.0, connect_timeout_seconds=2.0, stall_seconds=1.5,
        retry_seconds=0.02, max_retries=0, control_hosts=(CONTROL,), concurrency=8, concurrency_per_host=1,
        outage_patience_seconds=0.5 if case == "forever" else 30.0,
    )  # fmt: skip
    try:
        reasons, error = Worker(config, {})(pairs(urls))["drop"].to_pylist(), None
    except InputError as mistake:
        reasons, error = [], str(mistake)
    with open(result, "w", encoding="utf-8") as file:
        json.dump({"reasons": reasons, "error": error, "controls": names.controls}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
