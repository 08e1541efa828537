"""The local Ray head: jobs run on it, their exit codes come back, and nothing stays behind, whatever ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.conftest import REPOSITORY

PROGRAM = """
import signal, sys
from pathlib import Path
import os
from infra.mini.head import ENVIRONMENT, ray_head
from infra.mini.jobs import follow

signal.signal(signal.SIGTERM, signal.default_int_handler)
os.environ.update(ENVIRONMENT)
with ray_head(2, 100_000_000, Path(sys.argv[1])) as address:
    for command in sys.argv[2:]:
        print("exit", follow(address, command, ENVIRONMENT), flush=True)
"""
SLEEPER = "python -c \"print('asleep', flush=True); import time; time.sleep(600)\""


@pytest.fixture
def start(tmp_path) -> Iterator:
    started = []

    def run(*commands: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "ray.log"), *commands]
        started.append(subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_jobs_run_and_their_exit_codes_come_back(start) -> None:
    process = start("python -c 'print(6 * 7)'", "python -c 'import sys; sys.exit(3)'")
    output, _ = process.communicate(timeout=120)
    assert [line.strip() for line in output.splitlines()] == ["42", "exit 0", "exit 3"]


@pytest.mark.parametrize(
    "ending", [signal.SIGTERM, *(pytest.param(ending, marks=pytest.mark.slow) for ending in (signal.SIGINT, signal.SIGKILL))]
)
def test_no_process_stays_behind(start, ending: signal.Signals) -> None:
    process = start(SLEEPER)
    assert process.stdout.readline().strip() == "asleep"
    children = family(process)
    names = " ".join(" ".join(child.cmdline()) for child in children)
    assert "raylet" in names
    assert "time.sleep(600)" in names
    os.kill(process.pid, ending)
    process.wait(60)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
