"""Outages of the machine itself poison no part: resolver and network die for real, in namespaces of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.outage import MIN_HOSTS, silent
from tests.conftest import REPOSITORY
from tests.pipeline.outage_driver import NUM_CONTROLS, NUM_HOSTS, PER_HOST

UNSHARE = ["unshare", "--mount", "--net", "--map-root-user"]
EXPECTED = [None] * (NUM_HOSTS * PER_HOST) + ["dns"]


def download(case: str, folder: Path) -> dict[str, Any]:
    """What a part came to; skipped where the kernel gives no namespaces."""
    try:
        able = subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("needs namespaces for mounts and network, and the command ip")
    result = folder / "result.json"
    command = [*UNSHARE, sys.executable, "-m", "tests.pipeline.outage_driver", case, str(result)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=120)
    return json.loads(result.read_text())


def test_undisturbed_a_name_that_does_not_exist_is_believed_at_once(tmp_path: Path) -> None:
    assert download("undisturbed", tmp_path) == {"reasons": EXPECTED, "error": None, "controls": 0}


def test_a_resolver_that_dies_and_comes_back_poisons_nothing(tmp_path: Path) -> None:
    found = download("resolver", tmp_path)
    assert (found["reasons"], found["error"]) == (EXPECTED, None)
    assert found["controls"] >= NUM_CONTROLS


def test_a_resolver_that_stays_away_is_one_clear_line_and_no_part(tmp_path: Path) -> None:
    found = download("forever", tmp_path)
    assert found["reasons"] == []
    assert "is down: none of control.test was reached" in found["error"]
    assert "not committed" in found["error"]


def test_a_network_that_goes_down_in_the_middle_poisons_nothing(tmp_path: Path) -> None:
    assert download("network", tmp_path)["reasons"] == EXPECTED


def test_only_a_run_over_many_hosts_without_any_answer_is_in_doubt() -> None:
    def url(host: int, number: int = 0) -> str:
        return f"http://host{host}.test/{number}.jpg"

    few = {url(host, number): "timeout" for host in range(MIN_HOSTS - 1) for number in range(5)}
    assert silent(few) == []
    many = {url(host): "connect" for host in range(100, 100 + MIN_HOSTS)}
    assert silent(many) == list(many)
    assert silent({**few, url(999): None, **many, url(998): "http_4xx"}) == list(many)
    assert silent({**few, url(999): "http_4xx", url(50): "timeout"}) == []
