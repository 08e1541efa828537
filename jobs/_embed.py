"""Pictures to embeddings on Ray Data: units of a set over a pool of actors, each of which holds the model.

law     the parts are those of one process: a unit is made by one function, its file is written whole or not at all, and one
        that is made twice is written twice with the same rows
fault   an actor that dies is replaced and its unit made again; a unit whose actor dies every time fails the job (MAX_DEATHS)
"""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from model.evaluate import embeddings
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import BadSet, EvalSet, Unit
from model.evaluate.workspace import Todo, Workspace
from pipeline.errors import InputError

MAX_DEATHS = 3  # of the actors of one unit


class Worker:
    """One actor: a model, and the set whose units come."""

    def __init__(self, config: EvaluateConfig, eval_set: EvalSet, kept: str, units: dict[int, Unit]):
        from model.evaluate.encoders import load

        self.config, self.eval_set, self.kept, self.units = config, eval_set, kept, units
        self.encoder = load(config)

    def __call__(self, rows: pa.Table) -> pa.Table:
        from model.evaluate.embed import embed

        (number,) = rows["number"].to_pylist()
        try:
            table = embed(self.encoder, self.eval_set, self.units[number], self.config.batch_size)
        except BadSet as error:
            return pa.table({"facts": pa.array([None], pa.string()), "error": [str(error)]})
        facts = embeddings.write_part(self.kept, number, table)
        return pa.table({"facts": [json.dumps(facts)], "error": pa.array([None], pa.string())})


def over_actors(
    workspace: Workspace, eval_set: EvalSet, kept: str, todo: Todo, worker: type[Worker] = Worker
) -> list[dict[str, Any]]:
    """Make the parts of these units by --num-workers actors; each takes a GPU where the cluster has one for it."""
    if not todo:
        return []
    import ray
    from ray.data import ActorPoolStrategy
    from ray.exceptions import ActorDiedError, ActorUnavailableError, WorkerCrashedError
    from ray.util.annotations import RayDeprecationWarning

    from pipeline.runner import connect

    connect()
    workers = min(workspace.config.num_workers, len(todo))
    given = (workspace.config, eval_set, kept, dict(todo))
    num_gpus = 1 if ray.cluster_resources().get("GPU", 0) >= workers else 0
    with warnings.catch_warnings():
        # Ray Data 2.60 takes the limits on restarts only this way, which it calls deprecated; without them it retries for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        parts = ray.data.from_items([{"number": number} for number, _ in todo], override_num_blocks=len(todo)).map_batches(
            worker, batch_size=1, batch_format="pyarrow", num_cpus=1, num_gpus=num_gpus, fn_constructor_args=given,
            compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1),
            max_restarts=MAX_DEATHS, max_task_retries=MAX_DEATHS,
        )  # fmt: skip
    found = []
    try:
        batches: Iterator[Any] = iter(parts.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"))
        for batch in batches:
            (row,) = batch.to_pylist()
            if row["error"]:
                raise BadSet(row["error"])
            found.append(json.loads(row["facts"]))
    except (ActorDiedError, ActorUnavailableError, WorkerCrashedError) as error:
        raise InputError(
            f"evaluate: a worker died {MAX_DEATHS + 1} times on the same unit of {eval_set.name}: killed for memory "
            f"or a crash in a library; see its logs, run the same command again to go on. Ray says: {str(error).splitlines()[0]}"
        ) from error
    return found
