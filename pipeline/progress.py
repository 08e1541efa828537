"""Progress of a stage for a person: a line at most every few seconds, with rate and time to go."""

import time

from pipeline.events import Events
from pipeline.manifest import Part

EVERY_SECONDS = 5.0


class Progress:
    """Counts parts as they come."""

    def __init__(self, stage: str, num_parts: int, num_done: int, events: Events):
        self.stage, self.num_parts, self.num_done, self.events = stage, num_parts, num_done, events
        self.num_made = self.rows = 0
        self.started = self.shown = time.monotonic()
        if num_done:
            events.log(
                "stage_resumed", f"{stage:<16} goes on: {num_done} of {num_parts} parts are there", stage=stage, parts=num_done
            )

    def add(self, part: Part) -> None:
        """One more part is committed."""
        self.num_made += 1
        self.rows += part.rows_in
        now = time.monotonic()
        if now - self.shown < EVERY_SECONDS:
            return
        self.shown = now
        seconds = now - self.started
        left = (self.num_parts - self.num_done - self.num_made) * seconds / self.num_made
        line = (
            f"{self.stage:<16} {self.num_done + self.num_made}/{self.num_parts} parts  {self.rows:,} rows  "
            f"{self.rows / seconds:,.0f} rows/s  {left:,.0f} s to go"
        )
        self.events.log(
            "stage_progress",
            line,
            stage=self.stage,
            parts=self.num_done + self.num_made,
            rows=self.rows,
            seconds=round(seconds, 3),
        )
