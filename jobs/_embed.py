"""Pictures of a set to embeddings on Ray Data: units over a pool of actors, each of which holds the model.

law     the parts are those of one process: a unit is made by one function, its file is written whole or not at all, and one
        that is made twice is written twice with the same rows
"""

from typing import Any

import pyarrow as pa

from jobs import _actors
from model.evaluate import embeddings
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import BadSet, EvalSet, Unit
from model.evaluate.workspace import Todo, Workspace


class Worker:
    """One actor: a model, and the set whose units come."""

    def __init__(self, config: EvaluateConfig, eval_set: EvalSet, kept: str, units: dict[int, Unit]):
        from model.evaluate.encoders import load

        self.config, self.eval_set, self.kept, self.units = config, eval_set, kept, units
        self.encoder = load(config)

    def __call__(self, rows: pa.Table) -> pa.Table:
        (number,) = rows["number"].to_pylist()
        return _actors.answer_of(number, lambda: self.make(number), BadSet)

    def make(self, number: int) -> dict[str, Any]:
        """Embed a unit and write its part."""
        from model.evaluate.embed import embed

        table = embed(self.encoder, self.eval_set, self.units[number], self.config.batch_size)
        return embeddings.write_part(self.kept, number, table)


def over_actors(
    workspace: Workspace, eval_set: EvalSet, kept: str, todo: Todo, worker: type[Worker] = Worker
) -> list[dict[str, Any]]:
    """Make the parts of these units by --num-workers actors."""
    given = (workspace.config, eval_set, kept, dict(todo))
    numbers = [number for number, _ in todo]
    return _actors.over_actors(f"evaluate: {eval_set.name}", worker, given, numbers, workspace.config.num_workers, BadSet)
