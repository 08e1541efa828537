"""The curve of a run: one JSON object a line, on disk and, formatted, for people.

law     the file holds each line of the run once: a run that continues, or rewinds, first drops those after its checkpoint
lines   of a step (they have a loss), of a guard (they have its name), of the run's end
cost    a local file is appended to; in an object store the whole file is written again by `flush`
"""

import json
from typing import Any

from model import files

Event = dict[str, Any]


class EventLog:
    """The events of one run, from the step where it continues."""

    def __init__(self, path: str, run: str, first_step: int):
        self._path = path
        kept = [event for event in _read(path) if event.get("run") == run and event.get("step", 0) <= first_step]
        self._lines = [json.dumps(event) for event in kept]
        self._run = run
        self._write_all()

    def add(self, event: Event) -> None:
        """Write one line."""
        line = json.dumps({"run": self._run, **event})
        self._lines.append(line)
        if not files.is_remote(self._path):
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def rewind(self, step: int) -> None:
        """Drop the lines of later steps."""
        self._lines = [line for line in self._lines if json.loads(line)["step"] <= step]
        self._write_all()

    def flush(self) -> None:
        """Bring an object store up to date; a local file already is."""
        if files.is_remote(self._path):
            self._write_all()

    def _write_all(self) -> None:
        files.write(self._path, "".join(line + "\n" for line in self._lines).encode())


def _read(path: str) -> list[Event]:
    try:
        lines = files.read(path).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def say(text: str) -> None:
    """A line for people that is no event."""
    print(f"train  {text}", flush=True)


def readable(event: Event) -> str:
    """One event as a line for people."""
    minutes, seconds = divmod(int(event["eta_seconds"]), 60)
    scale = f"  scale {event['logit_scale']:.1f}" if "logit_scale" in event else ""  # predictive objectives have none
    mfu = f"  mfu {event['mfu']:.0%}" if "mfu" in event else ""
    return (
        f"train  step {event['step']:>6}/{event['num_steps']}  loss {event['loss']:.3f}{scale}"
        f"  lr {event['lr']:.2e}  grad {event['grad_norm']:.2f}  {event['pairs_per_second']:,.0f} pairs/s"
        f"  wait {event['data_wait_share']:.0%}{mfu}  left {minutes}:{seconds:02d}"
    )


def bar(event: Event, width: int = 24) -> str:
    """The same for a terminal: it takes the place of the line before, and has a bar."""
    done = round(width * event["step"] / event["num_steps"])
    end = "\n" if event["step"] == event["num_steps"] else ""
    return f"\r\x1b[K[{'#' * done}{'.' * (width - done)}] {readable(event).removeprefix('train  ')}{end}"
