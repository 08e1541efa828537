"""Run a stage: pending parts -> workers -> commit records -> manifest. The only file of the pipeline that knows Ray.

in      finished folders (sources, side datasets), a stage, its config
out     the target folder with its manifest; a folder made with another fingerprint is refused, naming the fields
law     running the same command again after any failure does only what is missing: a part is kept when its record says
        that it was made from the same inputs with the same settings, and its files are what the record says
law     what ran where, in which order and how often changes nothing in the manifest's hash
Ray     one row per chain of parts (most are of one) travels through Ray Data, never the data. Light stages are tasks, the
        others actors; a part may kill its worker at most `max_restarts` times more than once in one execution, because Ray
        Data would otherwise retry it for ever. What is the user's business (InputError) comes back as a value: it ends the
        run with one clear line, and what is committed stays.
"""

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.folders import amended, claim, committed, fingerprint, finish, manifest_in
from pipeline.hashing import sha256
from pipeline.manifest import Dataset, Json, Manifest, Part, canonical, intact
from pipeline.parts import Job, PartMaker, write_part
from pipeline.progress import Progress
from pipeline.stage import Input, Stage, Step, Task, chains, plan_group, plan_map

MAX_EXECUTIONS, MAX_STUCK, STRIDE = 20, 1, 7919  # of one stage; in a row that made nothing; see in_executions
ROW = pa.schema([("name", pa.string()), ("part", pa.string()), ("error", pa.string())])  # what a worker says of a part
Execute = Callable[[Job, Sequence[tuple[Task, str]], RunConfig], Iterable[Part | InputError]]


def run(
    stage: Stage,
    config: Any,
    *,
    sources: Sequence[str],
    target: str,
    sides: Mapping[str, str] | None = None,
    settings: RunConfig,
    events: Events,
    execute: Execute | None = None,
) -> Manifest:
    """Bring `target` up to date with its sources and return its manifest. InputError is the user's business."""
    started = time.monotonic()
    sides = dict(sides or {})
    manifests = [Dataset(folder).manifest for folder in sources]
    side_manifests = [Dataset(folder).manifest for folder in sides.values()]
    mark = fingerprint(stage.name, stage.version, config, [*manifests, *side_manifests])
    claim(target, mark)
    tasks = _tasks(stage, config, manifests, [manifest.digest() for manifest in side_manifests], mark)
    found = committed(target, tasks, settings)
    old = manifest_in(target)
    pending = [(task, made_from) for task, made_from in tasks if task.part not in found]
    if (
        not pending
        and old is not None
        and [part.identity() for part in old.parts] == [found[t.part].identity() for t, _ in tasks]
    ):
        events.log("stage_skipped", f"{stage.name:<16} already done: {_counts(old)}", stage=stage.name, hash=old.hash)
        return old
    job = Job(
        stage=stage, config=config, sources=tuple(sources), target=target, sides=sides, dropped_sample=settings.dropped_sample
    )
    _make_all(job, pending, found, settings, events, execute)
    num_buckets = stage.buckets(config) if stage.buckets else 0
    parts = tuple(found[task.part] for task, _ in tasks)
    manifest = Manifest(
        stage=stage.name, fingerprint=mark, parts=parts, num_buckets=num_buckets, seconds=round(time.monotonic() - started, 3)
    )
    finish(target, manifest, old)
    events.log(
        "stage_done", f"{stage.name:<16} {_counts(manifest)}  {manifest.seconds:.1f} s", stage=stage.name, hash=manifest.hash,
        rows_in=manifest.rows_in, rows_out=manifest.rows_out, seconds=manifest.seconds, parts=len(parts), parts_made=len(pending),
        **{f"drop/{reason}": count for reason, count in manifest.drops.items()},
    )  # fmt: skip
    return manifest


def _make_all(
    job: Job, pending: Sequence[tuple[Task, str]], found: dict[str, Part], settings: RunConfig, events: Events,
    execute: Execute | None,
) -> None:  # fmt: skip
    """Make the pending parts and put them into `found`, where those are that need not be made."""
    num_parts = len(pending) + len(found)
    progress = Progress(job.stage.name, num_parts, len(found), events)
    for result in (execute or on_ray)(job, pending, settings):
        if isinstance(result, InputError):
            with suppress(InputError):  # the store that refused a part may refuse this too; the first error is the one to show
                events.flush()
            raise InputError(f"{result} ({len(found)} of {num_parts} parts of {job.target} are committed and stay)")
        found[result.name] = result
        progress.add(result)


def retry(step: Step, root: str, *, settings: RunConfig, events: Events, execute: Execute | None = None) -> Manifest:
    """Try again the rows of a finished step that failed and may come out by now; every other row and file stays as it is.

    Interrupted, the same call goes on; the folder's manifest is the old one until every part has been tried.
    """
    started, stage, target = time.monotonic(), step.stage, storage.join(root, step.target)
    sources = [storage.join(root, name) for name in step.sources]
    sides = {name: storage.join(root, folder) for name, folder in dict(step.sides).items()}
    manifests, side_manifests = ([Dataset(folder).manifest for folder in folders] for folders in (sources, sides.values()))
    mark = fingerprint(stage.name, stage.version, step.config, [*manifests, *side_manifests])
    claim(target, mark)
    old = Dataset(target).manifest
    tasks = _tasks(stage, step.config, manifests, [manifest.digest() for manifest in side_manifests], mark)
    if [(part.name, part.made_from) for part in old.parts] != [(task.part, made_from) for task, made_from in tasks]:
        raise InputError(f"{target} is not up to date with its sources: run the same command without --retry-failed first")
    found = amended(target, old, settings)
    whole = {part.name: part for part in old.parts if not any(file.name.startswith("_failed/") for file in part.files)}
    pending = [(task, made_from) for task, made_from in tasks if task.part not in found and task.part not in whole]
    job = Job(
        stage=stage, config=step.config, sources=tuple(sources), target=target, sides=sides, amend=True,
        dropped_sample=settings.dropped_sample,
    )  # fmt: skip
    found |= whole
    _make_all(job, pending, found, settings, events, execute)
    parts = tuple(found[part.name] for part in old.parts)
    manifest = replace(old, parts=parts, seconds=round(time.monotonic() - started, 3))
    if manifest.hash != old.hash:
        finish(target, manifest, old)
    more, failed = manifest.rows_out - old.rows_out, sum(old.drops.values())
    events.log(
        "stage_retried", f"{stage.name:<16} tried again: {more:,} more of {failed:,} that had failed; {_counts(manifest)}",
        stage=stage.name, hash=manifest.hash, rows_more=more, rows_failed=failed, seconds=manifest.seconds,
    )  # fmt: skip
    return manifest


def run_steps(
    steps: Sequence[Step], root: str, *, settings: RunConfig, events: Events, execute: Execute | None = None
) -> dict[str, Manifest]:
    """Run the steps in order under `root`; the manifests by target."""
    made = {}
    for step in steps:
        sources, sides = [storage.join(root, name) for name in step.sources], dict(step.sides)
        made[step.target] = run(
            step.stage, step.config, sources=sources, target=storage.join(root, step.target), settings=settings, events=events,
            sides={name: storage.join(root, folder) for name, folder in sides.items()}, execute=execute,
        )  # fmt: skip
    return made


def write_dataset(target: str, *, stage: str, version: int, config: Any, parts: Mapping[str, pa.Table]) -> Manifest:
    """Write and commit a dataset that the driver made itself; nothing is written where it is there already."""
    mark = fingerprint(stage, version, config, [])
    claim(target, mark)
    old = manifest_in(target)
    missing = sorted(set(part.name for part in old.parts) - set(parts)) if old else []
    if missing:
        raise InputError(
            f"{target} was made from {len(missing)} inputs that this run does not name (the first: {missing[0]}); "
            "name them too, or give a new --root"
        )
    made: list[Part] = []
    for name, table in parts.items():
        whole = Stage(name=stage, version=version, shape="fanout", worker=_no_worker, writes=table.schema)
        job = Job(stage=whole, config=config, sources=(), target=target, sides={}, dropped_sample=0)
        made_from = sha256(canonical([mark, [str(table.schema), table.to_pylist()]]))
        known = {part.name: part for part in old.parts}.get(name) if old else None
        if known is not None and known.made_from == made_from and intact(target, known, "hash"):
            made.append(known)
            continue
        task = Task(part=name, inputs=())
        made.append(write_part(job, task, table, rows_in=table.num_rows, made_from=made_from, started=time.monotonic()))
    manifest = Manifest(stage=stage, fingerprint=mark, parts=tuple(made))
    if old is None or old.hash != manifest.hash:
        finish(target, manifest, old)
    return manifest


def finished(target: str, *, stage: str, version: int, config: Any) -> Manifest | None:
    """The manifest of a driver-made dataset if it is there, whole and made with this config; refuses another config."""
    claim(target, fingerprint(stage, version, config, []))
    old = manifest_in(target)
    return old if old is not None and all(intact(target, part, "hash") for part in old.parts) else None


def in_process(job: Job, pending: Sequence[tuple[Task, str]], settings: RunConfig) -> Iterator[Part | InputError]:
    """The parts, made one after another in this process: for tests and debuggers."""
    maker = PartMaker(job)
    for task, made_from in pending:
        yield _make(maker, task, made_from)


def on_ray(job: Job, pending: Sequence[tuple[Task, str]], settings: RunConfig) -> Iterator[Part | InputError]:
    """The parts, made by a pool of workers, in the order in which they are ready."""
    if not pending:
        return
    connect()
    left = {task.part: (task, made_from) for task, made_from in pending}
    yield from in_executions(job.stage.name, left, lambda rest: _execute(job, rest, settings), settings.max_restarts)


def in_executions(
    who: str, left: dict[Any, Any], execute: Callable[[list[Any]], Iterable[tuple[Any, Any]]], max_restarts: int
) -> Iterator[Any]:
    """What `execute` makes of all that is `left`, by its key: one execution of Ray Data after another, while they make something.

    A worker that died for good ends an execution. Nodes may go as often as they like; what kills every worker is soon the only
    thing that is left. The next execution begins elsewhere in the list, because that thing may be quicker than all others.
    """
    from ray.exceptions import ActorDiedError, ActorUnavailableError, WorkerCrashedError

    num_stuck = 0
    for number in range(MAX_EXECUTIONS):
        if not left:
            return
        before, rest = len(left), list(left.values())
        start = number * STRIDE % before
        try:
            for key, result in execute(rest[start:] + rest[:start]):
                del left[key]
                yield result
        except (ActorDiedError, ActorUnavailableError, WorkerCrashedError) as error:
            num_stuck = num_stuck + 1 if len(left) == before else 0
            if num_stuck > MAX_STUCK or number + 1 == MAX_EXECUTIONS:
                raise InputError(
                    f"{who}: a worker died {max_restarts + 1} times on the same part: killed for memory, or a crash in a "
                    f"library; see Ray's logs and run the same command again to go on. Ray says: {str(error).splitlines()[0]}"
                ) from error
            print(f"{who:<16} a worker or its node is gone for good; going on with {len(left):,} parts", flush=True)


def _execute(job: Job, pending: Sequence[tuple[Task, str]], settings: RunConfig) -> Iterator[tuple[str, Part | InputError]]:
    """One execution of Ray Data: each part by its name, as soon as it is ready."""
    import ray
    from ray.util.annotations import RayDeprecationWarning

    cpus = int(ray.cluster_resources().get("CPU", 1))
    rows = [{"chain": canonical([[asdict(task), made_from] for task, made_from in chain]).decode()} for chain in chains(pending)]
    workers = min(settings.num_workers or max(1, int(cpus / job.stage.num_cpus)), len(rows))
    with warnings.catch_warnings():
        # Ray Data 2.60 takes the limits on restarts only this way, which it calls deprecated; without them it retries for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        parts = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            batch_size=1, batch_format="pyarrow", num_cpus=job.stage.num_cpus, **_pool(job, pending, workers, settings)
        )  # fmt: skip
    batches: Iterator[Any] = iter(parts.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"))
    for batch in batches:
        (row,) = batch.to_pylist()
        yield row["name"], InputError(row["error"]) if row["error"] else Part.from_json(row["part"].encode())


def _pool(job: Job, pending: Sequence[tuple[Task, str]], workers: int, settings: RunConfig) -> dict[str, Any]:
    """What map_batches runs, where, and how often after a death."""
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    tries = settings.max_restarts
    if job.stage.light:
        # Tasks find the processes of the stage before; the start of new ones takes longer than a summary of a few parts.
        inputs = sha256(canonical([job.stage.name, job.sources, job.target, [made_from for _, made_from in pending]]))
        return {"fn": _make_row, "fn_args": (job, inputs), "compute": TaskPoolStrategy(size=workers), "max_retries": tries}
    # No other operator wants CPUs, so a pool that takes them all cannot starve one (Ray issue 44687). It starts whole and may
    # shrink to one: a cluster that lost a node goes on.
    pool = ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1)
    # Restarts are what is counted. While Ray has not yet noticed that a node is gone each call to its actors fails at once.
    limits = {"max_restarts": tries, "max_task_retries": -1}
    return {"fn": RayPartMaker, "fn_constructor_args": (job,), "compute": pool, **limits}


class RayPartMaker:
    """One actor: a PartMaker whose rows are chains of (task, made_from) in JSON."""

    def __init__(self, job: Job):
        self.maker = PartMaker(job)

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        (chain,) = [json.loads(text) for text in rows["chain"].to_pylist()]
        for fields, made_from in chain:
            inputs = tuple(Input(**{**item, "rows": item["rows"] and tuple(item["rows"])}) for item in fields["inputs"])
            task = Task(part=fields["part"], inputs=inputs, outputs=tuple(fields["outputs"]), chain=fields["chain"])
            # Ray makes the whole chain again where its worker died; what was committed stays.
            there = self.maker.committed(task, made_from) if task.chain else None
            result = there or _make(self.maker, task, made_from)
            failed = isinstance(result, InputError)
            part = None if failed else canonical(asdict(result)).decode()
            row = {"name": task.part, "part": part, "error": str(result) if failed else None}
            yield pa.Table.from_pylist([row], ROW)


def _make_row(rows: pa.Table, job: Job, inputs: str) -> Iterator[pa.Table]:
    """One task of a light stage. The process keeps the maker of the job that it worked for last, of the very same inputs."""
    if inputs not in _LAST:
        _LAST.clear()
        _LAST[inputs] = RayPartMaker(job)
    return _LAST[inputs](rows)


_LAST: dict[str, RayPartMaker] = {}


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine, and quieten Ray Data."""
    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=True)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its warnings are about its own defaults; our lines say what happens
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _make(maker: PartMaker, task: Task, made_from: str) -> Part | InputError:
    try:
        return maker.make(task, made_from)
    except InputError as error:
        return error


def _tasks(
    stage: Stage, config: Any, manifests: Sequence[Manifest], side_hashes: Sequence[str], mark: Json
) -> list[tuple[Task, str]]:
    """Every task of the stage with the hash of what its part is made from."""
    plan = stage.plan or (plan_group if manifests[0].num_buckets and stage.shape != "map" else plan_map)
    tasks = plan(config, manifests)
    if not tasks:
        raise InputError(f"{stage.name}: nothing to do: {manifests[0].stage} has no parts")
    digests: list[dict[str | None, str]] = [{part.name: part.digest() for part in manifest.parts} for manifest in manifests]
    for digest in digests:
        digest[None] = sha256(canonical(list(digest.items())))
    made_from = []
    for task in tasks:
        inputs = [[asdict(item), digests[item.source][item.part]] for item in task.inputs]
        made_from.append(sha256(canonical([mark, side_hashes, inputs, task.outputs])))
    return list(zip(tasks, made_from, strict=True))


def _counts(manifest: Manifest) -> str:
    drops = "  ".join(f"{reason} {count:,}" for reason, count in manifest.drops.items())
    return f"{manifest.rows_in:,} -> {manifest.rows_out:,}" + (f"  ({drops})" if drops else "")


def _no_worker(config: object, sides: object) -> Any:
    raise AssertionError("a dataset that the driver writes has no worker")
