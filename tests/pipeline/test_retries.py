"""The table of retries and the line that names a systematic trouble."""

import numpy as np
import pytest

from pipeline import failures, retries
from pipeline.download import DROPS


def test_the_table_has_a_row_for_every_reason_and_no_other():
    assert sorted(retries.POLICIES) == sorted(DROPS)
    assert set(failures.USUAL) <= set(DROPS)


def test_what_owners_say_and_what_bytes_are_is_never_asked_again():
    final = ("robots", "opt_out", "not_an_image", "bomb", "too_small", "aspect", "decode", "too_large", "address", "redirect")
    for reason in final:
        assert not retries.policy(reason).now
        assert not retries.policy(reason).later
    assert not any(policy.now and not policy.later for policy in [*retries.POLICIES.values(), *retries.BY_STATUS.values()])


@pytest.mark.parametrize(
    ("reason", "status", "now", "later"),
    [
        ("dns", 0, True, True),
        ("connect", 0, True, True),
        ("timeout", 0, True, True),
        ("tls", 0, False, True),
        ("http_4xx", 404, False, False),
        ("http_4xx", 403, False, False),
        ("http_4xx", 410, False, False),
        ("http_4xx", 408, True, True),
        ("http_4xx", 429, True, True),
        ("http_5xx", 500, True, True),
        ("http_5xx", 501, False, False),
        ("http_5xx", 503, True, True),
    ],
)
def test_a_status_may_know_better_than_its_class(reason: str, status: int, now: bool, later: bool):
    found = retries.policy(reason, status)
    assert (found.now, found.later) == (now, later)


def test_pauses_double_and_differ_by_url_and_are_always_the_same():
    urls = [f"http://{number}.test/a.jpg" for number in range(500)]
    first, second = ([retries.pause_seconds(url, "connect", 0, attempt, 1.0) for url in urls] for attempt in (0, 1))
    assert first == [retries.pause_seconds(url, "connect", 0, 0, 1.0) for url in urls]
    assert len(set(first)) == len(urls)
    assert min(first) >= 0.5
    assert max(first) < 1.5
    assert abs(np.mean(first) - 1) < 0.05
    assert abs(np.mean(second) - 2) < 0.1
    assert retries.pause_seconds(urls[0], "http_5xx", 503, 0, 1.0) == 2 * first[0]


def test_a_resolver_in_trouble_is_named_with_its_share_of_the_failures():
    (line,) = failures.diagnose(10_000, {"dns": 7100, "http_4xx": 2000, "timeout": 900})
    assert line.startswith("71% of 10,000 failures are DNS (71% of URLs): names do not resolve: run a caching resolver")
    assert line.endswith("then run again with --retry-failed")


def test_ordinary_losses_are_not_diagnosed_and_neither_is_a_handful_of_rows():
    assert failures.diagnose(10_000, {"dns": 800, "http_4xx": 2500, "timeout": 500, "decode": 100, "too_small": 4000}) == []
    assert failures.diagnose(100, {"dns": 100}) == []
    assert failures.diagnose(0, {}) == []


@pytest.mark.parametrize("reason", sorted(failures.USUAL))
def test_each_class_is_diagnosed_alone_where_it_is_over_its_share_and_only_there(reason: str):
    usual = failures.USUAL[reason][0]
    limit = round(100_000 * usual)
    assert failures.diagnose(100_000, {reason: limit}) == []
    (line,) = failures.diagnose(100_000, {reason: limit + 1})
    assert line.startswith("100% of ")
