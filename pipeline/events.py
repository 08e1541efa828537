"""What happened, one JSON object a line in root/_events/, and a readable line on the terminal.

The file is the truth; it is rewritten whole at each flush, since object stores do not append. Flat keys, units in names.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime

from pipeline import storage

Value = str | int | float | bool | None


class Events:
    """Collects events of one run of one job; `line` is what a person reads, the fields are what a program reads."""

    def __init__(self, root: str, job: str):
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.path = storage.join(root, "_events", f"{started}-{job}-{os.getpid()}.jsonl")
        self.lines: list[str] = []

    def log(self, event: str, line: str, **fields: Value) -> None:
        """Print `line` and keep the event."""
        self.lines.append(json.dumps({"time": round(time.time(), 3), "event": event, **fields}))
        print(line, flush=True)

    def flush(self) -> None:
        """Write what was collected so far."""
        storage.write(self.path, ("\n".join(self.lines) + "\n").encode())


def fail(message: str) -> None:
    """Print an error as the one line that a user sees."""
    print(f"error: {message}", file=sys.stderr, flush=True)
