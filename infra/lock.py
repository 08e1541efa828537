"""Write requirements.lock: exact versions of what pyproject.toml asks for, as pip resolves it today.

make lock        python -m infra.lock
"""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
HEAD = "# Exact versions of everything that the project runs and tests with; from pyproject.toml by `make lock`.\n"


def resolved() -> list[tuple[str, str]]:
    """Name and version of every package that an empty environment would get, sorted."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", ".[test]"]
    report = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout)
    packages = [package["metadata"] for package in report["install"]]
    # A local version such as 2.13.0+cpu is this machine's build of the release.
    return sorted((package["name"].lower().replace("_", "-"), package["version"].split("+")[0]) for package in packages)


def main() -> None:
    """Write the file."""
    lines = [f"{name}=={version}\n" for name, version in resolved() if name != "wit"]
    (REPOSITORY / "requirements.lock").write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
