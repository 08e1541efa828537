"""What is refused here, and in which words."""

from collections.abc import Iterable


class BadModel(ValueError):
    """A file or folder that is no model of ours or of a project that we read; the message says what was found."""


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, not all of a thousand."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
