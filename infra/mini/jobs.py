"""Submit jobs to a Ray head and follow them: their lines as they come, their exit code, stopped when we are interrupted.

This is what `ray job submit` does, through the same API; the command itself takes 5 s more to notice the end of a job,
shows a failed job's log twice, and on Ctrl-C leaves the job running.
"""

import logging
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

POLL_SECONDS = 0.2
AGENT_SECONDS = 60
REPOSITORY = Path(__file__).parents[2]
NOISE = (  # what Ray itself puts into every log, and says nothing of the job
    "Runtime env is setting up.",
    "Running entrypoint for job",
    "/ray/issues/53727",
    "gcs_actor_scheduler.cc:",
    "INFO worker.py:",
    "Requesting resources:",
    "Attempting to start training worker group",
    "Started training worker group",
    "world_rank=",
    "Setting up process group for",
)
PREFIX = re.compile(r"^\x1b\[\d+m\([A-Za-z]+ pid=\d+\)\x1b\[0m ")  # which of Ray's processes printed the line
EXCLUDES = ["out", ".venv", ".git", "tests", "docs", "**/__pycache__"]


def follow(address: str, entrypoint: str, environment: dict[str, str]) -> int:
    """Run one job to its end, printing its lines. Returns its exit code: 0 done, else the driver's own code."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    for logger in (
        "ray.dashboard.modules.dashboard_sdk",
        "ray._private.runtime_env.packaging",
        "ray._private.runtime_env.working_dir",
    ):
        logging.getLogger(logger).setLevel(logging.ERROR)
    client = JobSubmissionClient(address)
    runtime_env = {"working_dir": str(REPOSITORY), "excludes": EXCLUDES, "env_vars": environment}
    job = _submit(client, entrypoint, runtime_env)
    shown, status = 0, JobStatus.PENDING
    try:
        while not status.is_terminal():
            time.sleep(POLL_SECONDS)
            status = client.get_job_status(job)
            shown = _show(client.get_job_logs(job), shown)
    finally:
        if not status.is_terminal():
            client.stop_job(job)
    _show(client.get_job_logs(job) + "\n", shown)
    if status == JobStatus.SUCCEEDED:
        return 0
    info = client.get_job_info(job)
    if info.driver_exit_code is None:
        print(f"error: the job `{entrypoint}` did not run: {info.message}", file=sys.stderr, flush=True)
    return info.driver_exit_code or 1


def _submit(client: "JobSubmissionClient", entrypoint: str, runtime_env: dict[str, Any]) -> str:
    """Submit a job; a head that started just now answers "No available agent" until its agent has started too."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def _show(log: str, shown: int) -> int:
    """Print the whole lines after `shown` characters; returns how many characters are shown now."""
    end = log.rfind("\n") + 1
    for line in log[shown:end].splitlines():
        if line.strip() and not any(noise in line for noise in NOISE):
            print(f"  {PREFIX.sub('', line)}", flush=True)
    return max(shown, end)
