"""Write requirements.lock and requirements-peers.lock: exact versions, as pip resolves pyproject.toml today.

make lock        python -m infra.lock

The first holds what the project runs and tests with; the second what comes to it for the extras `onnx` and `peers`, with the
versions of the first taken as given.
"""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LOCK, PEERS_LOCK = REPOSITORY / "requirements.lock", REPOSITORY / "requirements-peers.lock"
HEAD = "# Exact versions of {what}; from pyproject.toml by `make lock`.\n"


def resolved(extras: str, *options: str) -> dict[str, str]:
    """Name -> version of every package that an empty environment would get for the project with these extras."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", *options]
    output = subprocess.run([*command, f".[{extras}]"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout
    packages = [package["metadata"] for package in json.loads(output)["install"]]
    # A local version such as 2.13.0+cpu is this machine's build of the release.
    found = {package["name"].lower().replace("_", "-"): package["version"].split("+")[0] for package in packages}
    return {name: version for name, version in sorted(found.items()) if name != "wit"}


def write(path: Path, what: str, packages: dict[str, str]) -> None:
    """One `name==version` a line under a head that says what they are."""
    path.write_text(HEAD.format(what=what) + "".join(f"{name}=={version}\n" for name, version in packages.items()))


def main() -> None:
    """Write both files."""
    base = resolved("test")
    write(LOCK, "everything that the project runs and tests with", base)
    peers = resolved("test,onnx,peers", "--constraint", str(LOCK))
    write(
        PEERS_LOCK,
        "the optional packages and the peers that we compare ourselves with",
        {n: v for n, v in peers.items() if n not in base},
    )


if __name__ == "__main__":
    main()
