"""Embed a folder, tar or Parquet of pictures or texts: unit vectors as Parquet, for search and whatever else wants them.

    python jobs/embed.py mini --root out/mini                                        # the dataset's own pictures
    python jobs/embed.py mini --root out/mini --source ~/Pictures --name pictures
    ray job submit --working-dir . -- python jobs/embed.py wit --root s3://bucket/wit --num-workers 64
    python jobs/embed.py mini --root out/mini --source texts.parquet --what texts

Writes root/embeddings/NAME-images or NAME-texts: see model/embed.py for columns, model/collection.py for what a source may be.
Run it again after any failure: parts that are there and follow from the same files, model and settings are not made again.
The last line is `rows=N unreadable=N`; what is unreadable is a row that says why, and makes no run fail.
"""

from typing import Any

import pyarrow as pa

from jobs._actors import answer_of, over_actors
from jobs._cli import entry, told
from model import collection, embed, files
from model.collection import BadCollection, Unit
from model.embed import RECIPES, EmbedConfig
from model.evaluate.config import EvaluateConfig

Todo = list[tuple[int, Unit, str]]  # number, unit, what its part is made from


def checkpoint_of(config: EmbedConfig) -> EvaluateConfig:
    """The model that is meant, as an evaluation names it."""
    return EvaluateConfig(root=config.root, model=config.model, tokenizer=config.tokenizer, activation=config.activation)


class Worker:
    """A model, and what becomes of a unit."""

    def __init__(self, config: EmbedConfig):
        from model.evaluate.encoders import load

        self.config, self.encoder = config, load(checkpoint_of(config))
        if config.what == "texts":
            embed.check_two_towers(self.encoder)

    def make(self, number: int, unit: Unit, origin: str) -> dict[str, Any]:
        """Embed a unit and write its part."""
        config = self.config
        table = embed.embed(self.encoder, unit, config.what, config.column, config.batch_size)
        return embed.write_part(config.folder, number, table, origin)


class Actor:
    """The same on Ray Data: a row is a unit, given by its number."""

    def __init__(self, config: EmbedConfig, todo: Todo):
        self.worker, self.todo = Worker(config), {number: (unit, origin) for number, unit, origin in todo}

    def __call__(self, rows: pa.Table) -> pa.Table:
        (number,) = rows["number"].to_pylist()
        return answer_of(number, lambda: self.worker.make(number, *self.todo[number]), BadCollection)


def main(config: EmbedConfig) -> None:
    """Embed what is not embedded yet; print the last line."""
    from model.evaluate import results

    with told(ValueError):
        units = collection.units(config.source_path, config.what)
        model = results.model_hash(checkpoint_of(config))
        origins = [embed.made_from(unit, config, model) for unit in units]
        found = [embed.found_part(config.folder, number, origin) for number, origin in enumerate(origins)]
        todo = [(n, unit, origins[n]) for n, unit in enumerate(units) if found[n] is None]
        print(f"embed            {len(units):,} units of {config.source_path}, {len(todo):,} to do", flush=True)
        parts = [part for part in found if part is not None]
        if todo:
            files.remove(files.join(config.folder, embed.MANIFEST))  # a folder that is half another model's is not whole
        if todo and config.num_workers:
            numbers = [number for number, _, _ in todo]
            parts += over_actors("embed", Actor, (config, todo), numbers, config.num_workers, BadCollection)
        elif todo:
            worker = Worker(config)
            parts += [worker.make(*task) for task in todo]
        numbers = sorted(part["number"] for part in parts)
        assert numbers == list(range(len(units))), f"{config.folder}: parts {numbers[:20]} of {len(units)} units"
        manifest = embed.write_manifest(
            config.folder, parts, {"what": config.what, "source": config.source_path, "model": model, "checkpoint": config.model}
        )
    print(f"embed            {config.folder}")
    print(f"rows={manifest['rows']} unreadable={manifest['unreadable']}", flush=True)


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
