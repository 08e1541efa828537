"""A cluster without Ray: worker processes that take chains of tasks, as `runner.on_ray` deals them out."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

from pipeline.config import RunConfig
from pipeline.errors import InputError
from pipeline.manifest import Part
from pipeline.parts import Job, PartMaker
from pipeline.runner import Execute
from pipeline.stage import Task, chains

Pending = Sequence[tuple[Task, str]]


def make_chain(job: Job, chain: Pending) -> list[Part]:
    """The parts of a chain, one after another, in this process."""
    maker = PartMaker(job)
    return [maker.make(task, made_from) for task, made_from in chain]


def cluster(num_workers: int, *, chained: bool = True) -> Execute:
    """An `execute` for runner.run. chained=False: as if every part were a chain of its own."""

    def execute(job: Job, pending: Pending, settings: RunConfig) -> Iterator[Part | InputError]:
        dealt = chains(pending) if chained else [[one] for one in pending]
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            for parts in pool.map(make_chain, repeat(job), dealt):
                yield from parts

    return execute
