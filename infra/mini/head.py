"""A Ray head on this machine for one run: started, used through Ray's job API, and gone with all its processes.

law     whatever ends the run (success, a failed job, Ctrl-C, SIGTERM, even SIGKILL of this process), no process stays: the
        head runs under `ray start --block`, which takes its children along, and the kernel ends it with its parent
safety  the dashboard listens on loopback; authentication is switched off on purpose, because a token file that any earlier
        local `ray.init()` left behind would otherwise lock the user out (Ray 2.59 and later)
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_SECONDS = 60
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_num_workers_soft_limit": "8",  # idle workers are kept: starting them is most of a small job's time
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",
    "RAY_JOB_STOP_WAIT_TIME_S": "5",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent() -> None:
    """In a child on Linux: get SIGTERM when the parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started: first asked, then forced."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS / 5)
    for survivor in alive:
        with suppress(psutil.NoSuchProcess):  # it may end by itself just now
            survivor.kill()
    process.wait()


@contextmanager
def ray_head(num_cpus: int, object_store_bytes: int, log: Path) -> Iterator[str]:
    """Start a head, yield the address of its job API, stop it. RuntimeError with the log's end where it does not come up."""
    log.parent.mkdir(parents=True, exist_ok=True)
    port, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="wit-", ignore_cleanup_errors=True) as folder, log.open("wb") as output:
        options = {
            "--port": port,
            "--dashboard-host": "127.0.0.1",
            "--dashboard-port": dashboard,
            "--dashboard-agent-listen-port": free_port(),  # the default one belongs to another Ray, where there is one
            "--ray-client-server-port": free_port(),
            "--min-worker-port": 0,
            "--max-worker-port": 0,
            "--temp-dir": folder,
            "--num-cpus": num_cpus,
            "--object-store-memory": object_store_bytes,
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += [str(word) for option in options.items() for word in option]
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT},
            preexec_fn=end_with_parent, start_new_session=True,
        )  # fmt: skip
        try:
            _wait_for(process, dashboard, log)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            stop(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until Ray says that it runs and the job API answers: the API answers seconds before the node can take a job."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if b"Ray runtime started" in log.read_bytes() and _listens(port):
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"mini: the Ray head did not start within {START_SECONDS} s; the end of {log}:\n{tail}")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
