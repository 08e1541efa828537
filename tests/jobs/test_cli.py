"""A user's mistake: one clear message (who, expected, found, what to do), exit code 2, nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

MISTAKES = [  # job, arguments after the recipe, what the message must say
    (
        "build_wit",
        ["--archives", "/no/such/path"],
        ["crawl: /no/such/path: expected an archive, found nothing there; check the path"],
    ),
    (
        "build_wit",
        ["--archives", "README.md"],
        ["crawl: README.md: expected a WARC, WAT or HTML file, found", "give the archive"],
    ),
    (
        "build_wit",
        ["--archives", "tests/data/commoncrawl"],
        ["queries has no _MANIFEST.json", "run the job that builds it first"],
    ),
    ("build_wit", [], ["crawl: expected at least one archive, found none; give --archives"]),
    ("build_wit", ["--balance.max-per-query", "0"], ["parsing --balance: balance: max_per_query must be", "at least 1, found 0"]),
    ("build_wit", ["--download.image-size", "big"], ["--download.image-size", "'big'"]),
    ("build_wit", ["--nosuch", "3"], ["Unrecognized options: --nosuch"]),
    ("build_queries", ["--queries.text-files", "/no/such/text"], ["/no/such/text"]),
    ("train", [], ["6_shards"]),
    ("train", ["--model.objective", "guess"], ["--model.objective", "'guess'", "'bag_of_words', 'caption'"]),
    ("evaluate", ["--eval-set", "/no/such/set"], ["/no/such/set"]),
    ("report", [], ["--root"]),
]


def run(job: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"jobs/{job}.py", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("job", "arguments", "message"), MISTAKES)
def test_a_mistake_is_one_message_and_writes_nothing(job: str, arguments: list[str], message: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    found = run(job, "mini", "--root", str(root), *arguments)
    text = " ".join(found.stderr.replace("│", " ").split())
    assert found.returncode == 2, found.stderr
    assert all(part in text for part in message), found.stderr
    assert "Traceback" not in found.stderr
    assert not [path for path in root.rglob("*") if path.is_file() and "_events" not in path.parts]


def test_an_unknown_recipe_names_the_known_ones() -> None:
    for more in ([], ["--root", "out/x"]):
        found = run("build_wit", "gigantic", *more)
        assert found.returncode == 2
        assert found.stderr.count("\n") == 1
        assert "build_wit: expected a recipe (mini, pilot, wit), found gigantic" in found.stderr


def test_nobody_crawls_the_web_without_saying_who(tmp_path: Path) -> None:
    found = run("build_wit", "pilot", "--root", str(tmp_path / "root"), "--archives", "tests/data/commoncrawl/whirlwind.warc.gz")
    assert found.returncode == 2
    assert "--download.contact-url" in found.stderr
    assert not (tmp_path / "root").exists()


def test_a_relative_root_in_a_submitted_job_is_refused() -> None:
    environment = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    found = run("build_wit", "mini", "--root", "out/mini", environment=environment)
    assert found.returncode == 2
    assert "expected an absolute path or a URL" in found.stderr
