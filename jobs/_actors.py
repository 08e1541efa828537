"""Numbered units of work over a pool of Ray Data's actors, each of which holds a model.

in      a class, made with `given`, whose instances answer Ray Data's batches: one row with the unit's `number` in, one of
        `answer` out, which is answer_of(...) the facts of what was made, or of what is wrong with the unit
law     every number is answered once; what is made is the unit's, whoever made it
fault   an actor that dies is replaced and its unit made again; a unit whose actor dies every time fails the job (MAX_DEATHS)
"""

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError

MAX_DEATHS = 3  # of the actors of one unit


def answer_of(make: Callable[[], dict[str, Any]], mistakes: type[ValueError]) -> pa.Table:
    """What an actor says of a unit: the facts that `make` returns, or the message of a mistake in the unit."""
    try:
        answer = {"facts": make()}
    except mistakes as error:
        answer = {"error": str(error)}
    return pa.table({"answer": [json.dumps(answer)]})


def over_actors(
    who: str, actor: type, given: tuple[Any, ...], numbers: Sequence[int], num_workers: int, mistakes: type[ValueError]
) -> list[dict[str, Any]]:
    """The facts of each unit, in the order in which they were made; an actor takes a GPU where the cluster has one for each.

    Raises `mistakes` where a unit is wrong, InputError where an actor died over and over; `who` speaks.
    """
    if not numbers:
        return []
    import ray
    from ray.data import ActorPoolStrategy
    from ray.exceptions import ActorDiedError, ActorUnavailableError, WorkerCrashedError
    from ray.util.annotations import RayDeprecationWarning

    from pipeline.runner import connect

    connect()
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
    found = []
    try:
        for batch in parts.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"):
            (answer,) = map(json.loads, batch["answer"].to_pylist())  # type: ignore[index]
            if "error" in answer:
                raise mistakes(answer["error"])
            found.append(answer["facts"])
    except (ActorDiedError, ActorUnavailableError, WorkerCrashedError) as error:
        raise InputError(
            f"{who}: a worker died {MAX_DEATHS + 1} times on the same unit: killed for memory or a crash in a library; see "
            f"its logs, run the same command again to go on. Ray says: {str(error).splitlines()[0]}"
        ) from error
    return found
