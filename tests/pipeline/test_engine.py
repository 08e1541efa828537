"""engine="img2dataset": the same part through its library, in our columns; and what is said where it cannot be run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import download, engine
from pipeline.config import DownloadConfig
from pipeline.errors import InputError
from tests.benchmarks.download import peer_python
from tests.conftest import REPOSITORY
from tests.pipeline.test_outage import UNSHARE

CONFIG = DownloadConfig(contact_url="http://us.test/bot", engine="img2dataset")


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        ("failed_to_download", "HTTP Error 404: Not Found", ("http_4xx", 404)),
        ("failed_to_download", "HTTP Error 503: Service Unavailable", ("http_5xx", 503)),
        ("failed_to_download", "<urlopen error [Errno -3] Temporary failure in name resolution>", ("dns", 0)),
        ("failed_to_download", "<urlopen error [Errno -2] Name or service not known>", ("dns", 0)),
        ("failed_to_download", "<urlopen error timed out>", ("timeout", 0)),
        ("failed_to_download", "The read operation timed out", ("timeout", 0)),
        ("failed_to_download", "<urlopen error [Errno 111] Connection refused>", ("connect", 0)),
        ("failed_to_download", "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>", ("tls", 0)),
        ("failed_to_download", "Use of image disallowed by X-Robots-Tag directive", ("opt_out", 0)),
        ("failed_to_resize", "Image decoding error", ("decode", 0)),
        ("failed_to_resize", "image too small", ("too_small", 0)),
        ("failed_to_resize", "aspect ratio too large", ("aspect", 0)),
        ("failed_to_resize", "image area too large", ("bomb", 0)),
    ],
)
def test_its_messages_are_our_reasons(status: str, message: str, reason: tuple[str, int]) -> None:
    assert engine.reason_of(status, message) == reason
    assert reason[0] in download.DROPS


def test_an_engine_that_cannot_be_run_is_told_before_anything_is_fetched() -> None:
    for python, words in (
        ("", "found none given"),
        ("/no/such/python", "cannot run /no/such/python"),
        (sys.executable, "cannot import"),
    ):
        with pytest.raises(InputError, match=rf"{words}.*pip install img2dataset==1\.47\.0") as told:
            download.plan(replace(CONFIG, img2dataset_python=python), [])
        assert "--download.img2dataset-python" in str(told.value)


@pytest.mark.peers
def test_img2dataset_makes_of_a_part_what_we_make_of_it(tmp_path: Path) -> None:
    able = subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], check=False, capture_output=True).returncode == 0
    if not able:
        pytest.skip("needs namespaces for mounts and network, and the command ip")
    result = tmp_path / "result.json"
    command = [
        *UNSHARE,
        sys.executable,
        "-m",
        "tests.pipeline.engine_driver",
        peer_python(os.environ.get("IMG2DATASET_PYTHON", "")),
        str(result),
    ]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=200)
    rows = json.loads(result.read_text())
    reasons = {row["url"].rsplit("/", 1)[-1]: row["reasons"] for row in rows}
    for name, (ours, its) in reasons.items():
        assert its == ("decode" if name == "page.jpg" else ours), name
    assert reasons["closed.jpg"] == ["robots", "robots"]
    assert {row["url"]: row["status"] for row in rows}["http://host0.test/missing.jpg"] == 404
    good = [row for row in rows if "psnr" in row]
    assert len(good) == 21
    assert all(row["sizes"][0] == row["sizes"][1] and all(row["same"]) for row in good)
    assert sum(row["psnr"] for row in good) / len(good) > 35
