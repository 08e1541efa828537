"""The mini run: a small web on loopback, a Ray head, and the platform's five jobs on them.

    make mini                                   python -m infra.mini.run --root out/mini

Everything is put under --root: the small web (web/), the dataset (1_candidates/ ... 6_shards/), the model, the report. Run
it again after any failure or interruption: what is finished is skipped. The exit code is that of the first job that fails.
The last line is `pairs=N top1=0.NN top5=0.NN classes=N report=PATH`.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra.mini.head import ENVIRONMENT, end_with_parent, ray_head, stop
from infra.mini.jobs import REPOSITORY, follow
from pipeline.errors import InputError
from pipeline.events import fail
from pipeline.manifest import Dataset

OBJECT_STORE_BYTES = 300_000_000
FUNNEL = ("1_candidates", "2_matched", "3_balanced", "4_images", "5_unique", "5_unique/_trimmed", "6_shards")
SERVER_SECONDS = 30
START = time.monotonic()


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - START:5.0f} s] {line}", flush=True)


def make_web(web: Path, num_links: int) -> int:
    """Generate the small web, or find that it is there. Returns the generator's exit code; it tells its own mistakes."""
    command = [sys.executable, "-m", "infra.mini.web", "--out", str(web), "--links", str(num_links)]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


def serve(web: Path, port_file: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the small web's server; returns its process and port."""
    port_file.unlink(missing_ok=True)
    with (web.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.mini.server", "--web", str(web), "--port", "0", "--port-file", str(port_file)],
            cwd=REPOSITORY, stdout=log, stderr=log, preexec_fn=end_with_parent, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists() and (text := port_file.read_text().strip()):
            return process, int(text)
        time.sleep(0.05)
    stop(process)
    raise RuntimeError(f"mini: the small web's server did not start within {SERVER_SECONDS} s; see {web.parent / 'server.log'}")


def commands(root: Path, web: Path, port: int, extra: dict[str, list[str]]) -> list[tuple[str, str]]:
    """The jobs in order: what a person calls it, and its command line."""
    options: dict[str, list[str]] = {
        "build_queries": ["--queries.concept-files", f"{web}/concepts.txt", "--queries.text-files", f"{web}/corpus.txt"],
        "build_wit": [
            "--archives", f"{web}/archives", "--download.hosts-file", f"{web}/hosts", "--download.hosts-port", str(port),
        ],
        "train": [],
        "evaluate": ["--eval-set", f"{web}/test", "--name", "phosphor"],
        "report": [],
    }  # fmt: skip
    return [
        (name, shlex.join([sys.executable, f"jobs/{name}.py", "mini", "--root", str(root), *given, *extra.get(name, [])]))
        for name, given in options.items()
    ]


def print_funnel(root: Path) -> int:
    """The funnel, a line a stage; returns the number of pairs at its end."""
    print("\nfunnel", flush=True)
    for name in FUNNEL:
        manifest = Dataset(f"{root}/{name}").manifest
        drops = "  ".join(f"{reason} {count:,}" for reason, count in manifest.drops.items())
        print(f"  {name:<18}{manifest.rows_in:>8,} -> {manifest.rows_out:>7,}   {drops}", flush=True)
    return manifest.rows_out


def last_line(root: Path, pairs: int) -> str:
    """The result in one line."""
    result = json.loads(next((root / "evaluation").glob("[!_]*.json")).read_text())
    report = root / "report" / "index.html"
    scores = " ".join(f"{name}={result[name]:.2f}" for name in ("top1", "top5"))
    return f"pairs={pairs} {scores} classes={result['num_classes']} report={report}"


def run(root: Path, num_links: int, extra: dict[str, list[str]]) -> int:
    """The whole mini run. Returns the exit code."""
    web = root / "web"
    web.parent.mkdir(parents=True, exist_ok=True)
    say(f"small web: {web}")
    if code := make_web(web, num_links):
        return code
    server, port = serve(web, root / "server.port")
    try:
        say("starting a Ray head on this machine")
        with ray_head(max(4, os.cpu_count() or 1), OBJECT_STORE_BYTES, root / "ray.log") as address:
            for name, command in commands(root, web, port, extra):
                say(f"job {name}")
                code = follow(address, command, ENVIRONMENT)
                if code:
                    fail(f"mini: the job {name} ended with exit code {code}; what is finished stays: run the same command again")
                    return code
    finally:
        stop(server)
    pairs = print_funnel(root)
    print(f"\n{last_line(root, pairs)}", flush=True)
    return 0


def main(arguments: list[str]) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.mini.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=Path("out/mini"), help="folder for everything that the run makes (default: out/mini)"
    )
    parser.add_argument("--links", type=int, default=20_000, help="size of the small web in image links (default: 20000)")
    parser.add_argument(
        "--job-options", action="append", default=[], metavar="JOB:OPTIONS", help='more options for a job: "train:--max-steps 20"'
    )
    options = parser.parse_args(arguments)
    extra: dict[str, list[str]] = {}
    for item in options.job_options:
        job, _, text = item.partition(":")
        extra.setdefault(job, []).extend(shlex.split(text))
    if options.root.exists() and not options.root.is_dir():
        fail(f"mini: --root must be a folder, found a file: {options.root}; give another")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.update(ENVIRONMENT)  # the submitting side reads them too
    try:
        return run(options.root.resolve(), options.links, extra)
    except InputError as error:
        fail(str(error))
        return 2
    except KeyboardInterrupt:
        fail("mini: interrupted; what is finished stays: run the same command again")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
