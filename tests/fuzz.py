"""Fuzzing: bytes of the real formats, damaged at random, through every parser of the pipeline, against its law.

    python -m tests.fuzz --seconds 300 [--targets wat matcher] [--seed 7]

in      the targets of tests/fuzz_targets.py and what their cases are made from
out     for each target how many cases ran. The first case that breaks a law is told, as bytes that a test can keep, and ends it
law     a case is a function of (seed, target, number): what is printed can be run again with --seed and --first
"""

import argparse
import itertools
import sys
import time

import numpy as np

from tests.fuzz_targets import TARGETS, Case, corpora, damaged

MAX_CASE_SECONDS = 10.0


def case_of(seed: int, target: str, number: int, corpus: list[bytes]) -> tuple[Case, np.random.Generator]:
    """Case `number` of a target, and the chance that its check draws from."""
    chance = np.random.default_rng([seed, sorted(TARGETS).index(target), number])
    return damaged(corpus[int(chance.integers(len(corpus)))], chance, corpus), chance


def run(target: str, seed: int, first: int, seconds: float, max_cases: int | None = None) -> int:
    """Run cases until the time or their number is over, and count them. What a case breaks is raised, after the case was told."""
    corpus, start = corpora()[target], time.monotonic()
    for number in itertools.count(first):
        if time.monotonic() - start > seconds or number - first == max_cases:
            return number - first
        case, chance = case_of(seed, target, number, corpus)
        began, held = time.process_time(), False
        try:
            TARGETS[target](case, chance)
            held = True
        finally:
            if not held:
                print(f"fuzz  {target}: --seed {seed} --first {number}, {len(case)} bytes: {case[:2000]!r}", file=sys.stderr)
        took = time.process_time() - began
        if took > MAX_CASE_SECONDS and number > first:  # the first case compiles
            raise AssertionError(f"--seed {seed} --first {number}, {len(case)} bytes, took {took:.1f} s: {case[:2000]!r}")
    raise AssertionError("count never ends")


def main() -> None:
    """Fuzz each target for its share of the time."""
    parser = argparse.ArgumentParser(description="Damaged bytes through every parser of the pipeline.")
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together")
    parser.add_argument("--targets", nargs="*", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    for target in options.targets:
        cases = run(target, options.seed, options.first, options.seconds / len(options.targets))
        print(f"fuzz  {target:10} {cases:9,} cases, no law broken", flush=True)


if __name__ == "__main__":
    main()
