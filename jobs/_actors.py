"""Numbered units of work over a pool of Ray Data's actors, each of which holds a model.

in      a class, made with `given`, whose instances answer Ray Data's batches: one row with the unit's `number` in, one of
        `answer` out, which is answer_of(...) the facts of what was made, or of what is wrong with the unit
law     every number is answered once; what is made is the unit's, whoever made it
fault   an actor that dies is replaced and its unit made again; a unit whose actor dies every time fails the job once it is the
        only one that is left (pipeline/runner.py: in_executions)
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

MAX_DEATHS = 3  # of one actor in one execution


def answer_of(number: int, make: Callable[[], dict[str, Any]], mistakes: type[ValueError]) -> pa.Table:
    """What an actor says of a unit: the facts that `make` returns, or the message of a mistake in the unit."""
    try:
        answer = {"number": number, "facts": make()}
    except mistakes as error:
        answer = {"number": number, "error": str(error)}
    return pa.table({"answer": [json.dumps(answer)]})


def over_actors(
    who: str, actor: type, given: tuple[Any, ...], numbers: Sequence[int], num_workers: int, mistakes: type[ValueError]
) -> list[dict[str, Any]]:
    """The facts of each unit, in the order in which they were made; an actor takes a GPU where the cluster has one for each.

    Raises `mistakes` where a unit is wrong, InputError where an actor died over and over; `who` speaks.
    """
    if not numbers:
        return []
    from pipeline.runner import connect, in_executions

    connect()
    left = {number: number for number in numbers}

    def made(rest: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for answer in _execute(actor, given, rest, num_workers):
            if "error" in answer:
                raise mistakes(answer["error"])
            yield answer["number"], answer["facts"]

    return list(in_executions(who, left, made, MAX_DEATHS))


def _execute(actor: type, given: tuple[Any, ...], numbers: list[int], num_workers: int) -> Iterator[dict[str, Any]]:
    """What the actors say of each unit, in one execution of Ray Data."""
    import ray
    from ray.data import ActorPoolStrategy
    from ray.util.annotations import RayDeprecationWarning

    workers = min(num_workers, len(numbers))
    num_gpus = 1 if ray.cluster_resources().get("GPU", 0) >= workers else 0
    rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    with warnings.catch_warnings():
        # Ray Data 2.60 takes the limits on restarts only this way, which it calls deprecated; without them it retries for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        parts = rows.map_batches(
            actor, batch_size=1, batch_format="pyarrow", num_cpus=1, num_gpus=num_gpus, fn_constructor_args=given,
            compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1),
            max_restarts=MAX_DEATHS, max_task_retries=-1,  # restarts are what is counted: see pipeline/runner.py
        )  # fmt: skip
    for batch in parts.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"):
        yield from map(json.loads, batch["answer"].to_pylist())  # type: ignore[index]
