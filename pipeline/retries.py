"""What is tried again: one policy for each class of failure of the download.

in      a drop reason and, where the server answered, the status of its answer
out     whether another try in the same run may help (`now`), whether one in a later run may (`later`), and the pause before it
law     closed: POLICIES has a row for each reason of download.DROPS and no other
law     a pause is a function of URL, class and attempt: its jitter is a hash, so that hosts are not asked in step
source  RFC 9110 and RFC 6585, for the statuses that speak of a moment and not of the picture

What the owner said (robots, opt_out) and what the bytes are (not_an_image, decode, ...) is not asked again by anybody.
"""

from dataclasses import dataclass

import pyarrow as pa

from pipeline import hashing


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """One row of the table.

    now     tried again in the same run, at most DownloadConfig.max_retries times
    later   tried again by --retry-failed
    pause   the first pause, in units of DownloadConfig.retry_seconds; doubles with each attempt
    """

    now: bool = False
    later: bool = False
    pause: float = 1.0


NEVER = Policy()
LATER = Policy(later=True)
SOON = Policy(now=True, later=True)
BUSY = Policy(now=True, later=True, pause=2.0)  # a server or resolver that is overloaded is given more room

POLICIES = {
    "robots": NEVER,
    "dns": BUSY,
    "address": NEVER,
    "connect": SOON,
    "tls": LATER,  # certificates are renewed, though not within seconds
    "timeout": SOON,
    "redirect": NEVER,
    "http_4xx": NEVER,  # but for those of BY_STATUS
    "http_5xx": SOON,
    "too_large": NEVER,
    "opt_out": NEVER,
    "not_an_image": NEVER,
    "bomb": NEVER,
    "too_small": NEVER,
    "aspect": NEVER,
    "decode": NEVER,
}
BY_STATUS = {
    408: SOON,  # request timeout
    425: SOON,  # too early
    429: BUSY,  # too many requests
    501: NEVER,  # not implemented
    503: BUSY,
    505: NEVER,  # HTTP version not supported
}


def policy(reason: str, status: int = 0) -> Policy:
    """The row for a failure."""
    return BY_STATUS.get(status, POLICIES[reason])


def pause_seconds(url: str, reason: str, status: int, attempt: int, first_seconds: float) -> float:
    """How long to wait after attempt number `attempt` (from 0), by half less or more as the URL's hash will have it."""
    jitter = hashing.string_hash(f"{url} {attempt}") / 2**64
    return first_seconds * policy(reason, status).pause * 2**attempt * (0.5 + jitter)


def later(failed: pa.Table) -> pa.Array:
    """Which rows of schema.FAILED a later run tries again."""
    rows = zip(failed["drop"].to_pylist(), failed["http_status"].to_pylist(), strict=True)
    return pa.array([policy(reason, status or 0).later for reason, status in rows], pa.bool_())
