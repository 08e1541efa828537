"""Search: the pictures or texts of a collection that are nearest to a text or a picture.

in      a folder that jobs/embed.py wrote; questions as vectors of the same model
out     hits, best first: the cosine, the key, the text
law     cosines are worked out from the kept vectors, not from the index's: only which rows are looked at is approximate
law     up to EXACT rows every row is looked at; above, the index (HNSW) is asked for OVERSAMPLE times as many as are wanted
law     the index follows from the manifest: where that changed, it is made again
cost    exact: one product of matrices; the index: built in one pass, kept beside the vectors as _index.usearch
source  Malkov and Yashunin 2016, "Hierarchical Navigable Small World graphs"; USearch
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from model import embed, files
from model.collection import BadCollection

EXACT = 100_000
OVERSAMPLE = 4
INDEX, FACTS = "_index.usearch", "_index.json"


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer."""

    score: float  # cosine
    key: str
    text: str


class Search:
    """A collection in memory, ready to be asked."""

    def __init__(self, folder: str, exact: int = EXACT):
        self.folder = folder
        self.manifest, table = embed.load(folder)
        table = table.filter(table["unreadable"].is_null())
        if not table.num_rows:
            raise BadCollection(f"{folder}: expected vectors to search, found none")
        self.keys, self.texts = table["key"].to_pylist(), table["text"].to_pylist()
        flat = table["features"].combine_chunks()
        self.vectors = flat.flatten().to_numpy().reshape(len(flat), -1)
        self._index: Any = self._graph() if len(self.keys) > exact else None

    def nearest(self, question: np.ndarray, count: int = 10) -> list[Hit]:
        """The best rows for a vector of any length but zero.  [E] -> at most `count` hits"""
        if question.shape != (self.vectors.shape[1],):
            raise BadCollection(
                f"{self.folder} has vectors of {self.vectors.shape[1]} numbers, the question {question.shape}: another model?"
            )
        vector = embed.unit_length(question.astype(np.float32))
        if self._index is None:
            rows = np.arange(len(self.keys))
        else:
            rows = np.sort(self._index.search(vector, min(OVERSAMPLE * count, len(self.keys))).keys.astype(np.int64))
        scores = self.vectors[rows] @ vector
        best = np.argsort(-scores, kind="stable")[:count]
        return [Hit(float(scores[place]), self.keys[rows[place]], self.texts[rows[place]] or "") for place in best]

    def _graph(self) -> Any:
        """The kept index where it follows from these vectors, else a new one."""
        from usearch.index import Index

        wanted = files.sha256(json.dumps(self.manifest, sort_keys=True).encode())
        graph = Index(ndim=self.vectors.shape[1], metric="ip", dtype="f32")
        try:
            facts, data = json.loads(files.read(files.join(self.folder, FACTS))), files.read(files.join(self.folder, INDEX))
            if facts == {"made_from": wanted, "sha256": files.sha256(data)}:
                graph.load(data)
                return graph
        except (FileNotFoundError, ValueError):
            pass  # there is none, or none that is whole
        graph.add(np.arange(len(self.keys), dtype=np.uint64), self.vectors)
        data = bytes(graph.save())  # type: ignore[arg-type]
        files.write(files.join(self.folder, INDEX), data)
        files.write(files.join(self.folder, FACTS), json.dumps({"made_from": wanted, "sha256": files.sha256(data)}).encode())
        return graph
