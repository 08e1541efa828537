"""The README is true: its tree is the disk's, its commands are accepted, its Python runs."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobs._cli import parse
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
TREE = next(body for language, body in BLOCKS if not language and body.startswith("pipeline/"))
COMMANDS = [
    line.split("#")[0].strip() for language, body in BLOCKS if language == "sh" for line in body.splitlines() if line.strip()
]
PYTHON = [body for language, body in BLOCKS if language == "python"]
FOLDERS = ("pipeline", "model", "model/evaluate", "model/formats", "jobs", "infra", "infra/mini", "infra/plan")


def listed() -> dict[str, set[str]]:
    """Folder -> the Python files that the README's tree names under it."""
    names: dict[str, set[str]] = {}
    folders: list[str] = []
    for line in TREE.splitlines():
        depth, word = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        if word.endswith("/"):
            folders = [*folders[:depth], word.rstrip("/")]
            names.setdefault("/".join(folders), set())
        files = set(re.findall(r"\b(\w+\.py)\b", line))
        names["/".join(folders)] |= files
    return names


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tree_is_the_disks(folder: str) -> None:
    on_disk = {path.name for path in (REPOSITORY / folder).glob("*.py")} - {"__init__.py"}
    assert listed().get(folder, set()) == on_disk


def test_the_top_level_is_what_it_should_be() -> None:
    found = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    folders = {name.split("/")[0] for name in found if "/" in name}
    assert folders == {"pipeline", "model", "jobs", "infra", "tests", ".ci"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_accepted(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        return
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    assert words[0] == "python"
    if words[1] == "-m":
        subprocess.run([sys.executable, "-m", words[2], "--help"], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        return
    job = importlib.import_module(words[1].removesuffix(".py").replace("/", "."))
    config = parse(job.RECIPES, job.__doc__, words[2:])
    assert config.root == words[words.index("--root") + 1]


@pytest.mark.slow
@pytest.mark.skipif("MINI_ROOT" not in os.environ, reason="needs what a whole `make mini` leaves; CI gives it")
@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_every_python_example_runs(number: int, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mini").symlink_to(Path(os.environ["MINI_ROOT"]).resolve())
    found = subprocess.run([sys.executable, "-c", PYTHON[number]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip()
