"""Nodes of a Ray cluster on one machine, each a raylet with a process tree of its own, that can be killed and stalled.

law     what a test starts is gone with it: `with Cluster() as cluster:` kills every node at the end, however it ends
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from infra.mini.head import ENVIRONMENT, free_port

STORE_BYTES = 100_000_000


class Node:
    """One `ray start --block`, ready to work."""

    def __init__(self, *options: str):
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        command += ["--object-store-memory", str(STORE_BYTES), *options]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        raise RuntimeError(f"nodes: ray start ended before it was ready: {''.join(said[-20:])}")

    def family(self) -> list[psutil.Process]:
        """Every process of the node."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def send(self, number: signal.Signals) -> None:
        """A signal to every process of the node, as many as there are."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """Every process stands still until `go_on`."""
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stop`."""
        self.send(signal.SIGCONT)

    def stall(self, times: int, seconds: float, done: threading.Event) -> None:
        """Stand still so many times, a third of the time between: as a node that swaps or overheats. Ends when `done` is set."""
        for _ in range(times):
            self.stop()
            done.wait(seconds)
            self.go_on()
            if done.wait(seconds / 3):
                return

    def kill(self) -> None:
        """As if the machine lost its power."""
        family = self.family()
        self.stop()  # none may start another meanwhile
        for process in [*family, *self.family()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Cluster:
    """A head with one CPU, to which nodes are added."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="ray-")  # Ray's socket names must stay under 107 characters
        self.nodes: list[Node] = []
        self.address = ""

    def __enter__(self) -> "Cluster":
        self.start_head()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start_head(self) -> Node:
        """The first head, or another in the place of one that was killed."""
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        options = ["--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", self._folder]
        return self._add(Node(*options, "--num-cpus", "1"))

    def add(self, num_cpus: int = 1) -> Node:
        """A worker node."""
        ports = ["--min-worker-port", "0", "--max-worker-port", "0"]
        return self._add(Node("--address", self.address, "--num-cpus", str(num_cpus), *ports))

    def _add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def environment(self) -> dict[str, str]:
        """Of a driver that joins."""
        repository = str(Path(__file__).parents[1])
        return {**os.environ, **ENVIRONMENT, "RAY_ADDRESS": self.address, "PYTHONPATH": repository, "GLOO_SOCKET_IFNAME": "lo",
                "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.2"}  # fmt: skip
