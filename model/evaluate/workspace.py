"""The Context of an evaluation: opens sets, makes embeddings once, keeps them, gives them to tasks.

law     a split's embeddings are made by whoever `make` is: this process, or workers; the parts are the same
law     the model is loaded only where something is made
cost    the sets that are open, hashed once; the split that was asked for last in memory
"""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model import files
from model.evaluate import embeddings, layouts
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import BadSet, EvalSet, Unit
from model.evaluate.embeddings import Embedded

Todo = Sequence[tuple[int, Unit]]  # numbers of the units and the units
Make = Callable[["Workspace", EvalSet, str, Todo], list[dict[str, Any]]]  # ..., the folder, the units -> facts of their parts


def here(workspace: "Workspace", eval_set: EvalSet, kept: str, todo: Todo) -> list[dict[str, Any]]:
    """Make the parts in this process."""
    from model.evaluate.embed import embed

    encoder, batch_size = workspace.encoder(), workspace.config.batch_size
    return [
        embeddings.write_part(kept, number, embed(encoder, eval_set, unit, batch_size)) for number, unit in todo
    ]  # fmt: skip


class Workspace:
    """What tasks ask: see tasks.Context."""

    def __init__(
        self,
        config: EvaluateConfig,
        model: str,
        make: Make = here,
        *,
        encoder: Any = None,
        sets: dict[str, EvalSet] | None = None,
    ):
        """`model` is its hash; `encoder` spares loading it; `sets` are open already, by the spec that they were opened with."""
        self.config, self.model, self.make = config, model, make
        self._encoder = encoder
        self._sets = dict(sets or {})
        self._last: tuple[str, Embedded] | None = None

    def another(self, spec: str) -> EvalSet:
        """A set, as --sets names it."""
        if spec not in self._sets:
            self._sets[spec] = layouts.open_set(spec)
        return self._sets[spec]

    def encoder(self) -> Any:
        """The model, loaded when it is first asked for."""
        if self._encoder is None:
            from model.evaluate.encoders import load

            self._encoder = load(self.config)
        return self._encoder

    def facts(self) -> dict[str, Any]:
        """objective, logit_scale and logit_bias of the model, kept beside its embeddings."""
        path = files.join(self._folder(), "_MODEL.json")
        try:
            return json.loads(files.read(path))
        except (FileNotFoundError, json.JSONDecodeError):
            facts = self.encoder().facts()
            files.write(path, json.dumps(facts, indent=1).encode())
            return facts

    def embedded(self, eval_set: EvalSet, split: str) -> Embedded:
        """The embeddings of a split."""
        kept = embeddings.folder(self._evaluation(), self.model, eval_set, split)
        if self._last is None or self._last[0] != kept:
            self._make_whole(eval_set, split, kept)
            self._last = (kept, embeddings.load(kept, eval_set))
        return self._last[1]

    def classifier(self, eval_set: EvalSet) -> np.ndarray:
        """The unit text features of the set's classes.  [C, E] float32"""
        if not eval_set.names:
            raise BadSet(f"{eval_set.name}: expected classes with names, found a set of {eval_set.kind}")
        path = files.join(self._folder(), f"{eval_set.name}-classes-{eval_set.texts[: embeddings.DIGITS]}.parquet")
        try:
            column = files.table(files.read(path))["features"].combine_chunks()
            return column.flatten().to_numpy().reshape(len(column), -1)
        except (FileNotFoundError, pa.ArrowInvalid):
            from model.evaluate.zero_shot import class_features

            features = class_features(self.encoder(), eval_set, self.config.batch_size)
        names = pa.array(eval_set.classnames)
        sink = io.BytesIO()
        pq.write_table(pa.table({"name": names, "features": pa.array(list(features), pa.list_(pa.float32()))}), sink)
        files.write(path, sink.getvalue())
        return features

    def _evaluation(self) -> str:
        return files.join(self.config.root, "evaluation")

    def _folder(self) -> str:
        return files.join(self._evaluation(), "embeddings", self.model[: embeddings.DIGITS])

    def _make_whole(self, eval_set: EvalSet, split: str, kept: str) -> None:
        units = eval_set.split(split).units
        listed = embeddings.listed_parts(kept)
        parts = [part for number in range(len(units)) if (part := embeddings.found_part(kept, number, listed)) is not None]
        done = {part["number"] for part in parts}
        if listed.keys() == done == set(range(len(units))):
            return
        todo = [(number, unit) for number, unit in enumerate(units) if number not in done]
        parts += self.make(self, eval_set, kept, todo)
        numbers = sorted(part["number"] for part in parts)
        assert numbers == list(range(len(units))), f"{kept}: parts {numbers} of {len(units)} units"
        facts = {"model": self.model, "set": eval_set.name, "split": split, "pictures": eval_set.split(split).pictures}
        embeddings.write_manifest(kept, parts, facts)
