"""A plan held against a finished run: what another run's rates, or half of its own parts', would have told of it.

law     predicted from the links and archives of the run and from the recipe alone; every later number follows from the one before
silent  shares that depend on the scale (what balancing leaves out) are those of the smaller run
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import ceil

from infra.plan.build import Queries, Volume, volumes
from infra.plan.config import CheckConfig
from infra.plan.measured import Rate, Seen, num_workers, rate, rates, read
from infra.plan.steps import QUERY_LIST
from pipeline import config as recipes
from pipeline import storage
from pipeline.errors import InputError
from pipeline.hashing import sha256
from pipeline.manifest import Dataset, Part

Line = dict[str, float | str]
EVENTS = "train/events.jsonl"


def of_another(config: CheckConfig) -> list[Line]:
    """Each step of `against` as the rates of `measured` predict it."""
    seen, known = read(config.against), rates(config.measured)
    number = Dataset(storage.join(config.against, QUERY_LIST)).manifest.rows_out
    recipe = recipes.RECIPES[config.recipe]()
    crawl = seen["crawl"].manifest
    made = volumes(crawl.rows_in, len(crawl.parts), known, recipe, Queries(number, config.queries_per_pair, config.head_share))
    workers = config.workers or num_workers(seen)
    return [_line(volume, seen[volume.step.stage], known[volume.step.stage], workers) for volume in made.values()]


def _line(volume: Volume, seen: Seen, known: Rate, workers: int) -> Line:
    used = min(workers, volume.chains)
    worker_seconds = known.seconds(volume.rows_in, volume.tasks) + known.start_seconds * used
    predicted = {
        "rows_in": volume.rows_in, "rows_out": volume.rows_out, "bytes": volume.bytes_out, "worker_seconds": worker_seconds,
        "wall_seconds": ceil(volume.chains / used) * worker_seconds / volume.chains + known.pool_seconds,
    }  # fmt: skip
    return _compared(volume.step.stage, predicted, seen)


def _compared(stage: str, predicted: Mapping[str, float], seen: Seen) -> Line:
    manifest = seen.manifest
    found = {
        "rows_in": manifest.rows_in, "rows_out": manifest.rows_out, "bytes": seen.num_bytes, "worker_seconds": seen.seconds,
        "wall_seconds": manifest.seconds,
    }  # fmt: skip
    return {"stage": stage, **{f"{name}_{side}": values[name] for name in predicted for side, values in
                               (("predicted", predicted), ("seen", found))}}  # fmt: skip


def of_its_half(config: CheckConfig) -> list[Line]:
    """One half of each step's parts as the rates of the other half predict them, from their rows in; not of steps of one part.

    A hash of its name says in which half a part is. Wall-clock is of the whole step and is left out.
    """
    seen = read(config.against)
    workers = config.workers or num_workers(seen)
    lines = []
    for stage, one in seen.items():
        ranked = sorted(one.manifest.parts, key=lambda part: sha256(part.name.encode()))
        known, other = (_some_of(one, ranked[first::2]) for first in (0, 1))
        if not known.manifest.rows_in or not other.manifest.rows_in:
            continue
        told, rows_in = rate([known], workers), other.manifest.rows_in
        rows_out = rows_in * told.survival
        seconds = told.seconds(rows_in, other.tasks) + told.start_seconds * min(workers, other.tasks)
        num_bytes = rows_out * told.bytes_per_row + other.tasks * known.footer_bytes
        lines.append(
            _compared(stage, {"rows_in": rows_in, "rows_out": rows_out, "bytes": num_bytes, "worker_seconds": seconds}, other)
        )
    return lines


def _some_of(seen: Seen, parts: list[Part]) -> Seen:
    return replace(seen, manifest=replace(seen.manifest, parts=tuple(parts)))


def errors(lines: list[Line], measure: str, least: float = 0.0) -> Mapping[str, float]:
    """Predicted over seen of each step whose seen value is above `least`."""
    return {
        str(line["stage"]): float(line[f"{measure}_predicted"]) / float(line[f"{measure}_seen"])
        for line in lines
        if float(line.get(f"{measure}_seen", 0.0)) > least
    }


def of_training(root: str) -> list[Line]:
    """The second half of a training run as the rate of its first half predicts it; none where the root has no training."""
    path = storage.join(root, EVENTS)
    if storage.size(path) is None:
        return []
    try:
        events = [json.loads(line) for line in storage.read(path).splitlines()]
        steps = [event for event in events if "pairs_per_second" in event and event["run"] == events[-1]["run"]]
        steps = steps[1:]  # the first has the start in it
        rates_seen = [float(event["pairs_per_second"]) for event in steps]
        pairs = [float(after["samples_seen"]) - float(before["samples_seen"]) for before, after in pairwise(steps)]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"plan: {path} is no log of a training run: {error!r}") from None
    half = len(pairs) // 2
    if not half or min(rates_seen) <= 0:
        return []
    seconds = [count / rate_seen for count, rate_seen in zip(pairs, rates_seen[1:], strict=True)]
    known = sum(pairs[:half]) / sum(seconds[:half])
    left = sum(pairs[half:])
    return [{"stage": "train", "wall_seconds_predicted": left / known, "wall_seconds_seen": sum(seconds[half:])}]
