"""From rates and a target to rows, tasks, work, traffic, nodes, hours and cost of each step of a build.

law     rows go backwards from the pairs that are wanted through every step's survival to the links that are needed
law     a step on n nodes takes as long as the slowest of its cores, its network and the dispatch of its tasks, and its start-up;
        its tasks (or chains of tasks) are of equal size and done in rounds, of which the last may leave workers idle
law     more nodes never take longer; a step has no more workers than tasks, nor than fit the nodes' memory
law     all nodes stay for the whole build, so its cost is nodes x hours; folders are kept, and priced, for `store.months`
source  steps.STEPS, store.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import NamedTuple

from infra.plan.config import BuildConfig
from infra.plan.measured import Rate
from infra.plan.steps import ARCHIVES, BY_FOLDER, QUERY_LIST, STEPS, PlanStep, Read
from infra.plan.store import MISSING, Traffic, row_group, whole, written
from pipeline.config import DatasetConfig
from pipeline.errors import InputError
from pipeline.stage import RUN_ROWS

WORKER_BYTES = 700e6  # of a worker with nothing in its hands: Python, Arrow, Polars, tables
RECORD_BYTES = 900.0  # of a part in a manifest
DECODED = 4.0  # bytes of a picture over the wire for each byte that is kept, where nothing else is said
QUERY_BYTES = 60.0  # of a query and what the matcher keeps of it
TRAFFIC_OF_A_STEP = Traffic(puts=4, gets=6)  # fingerprint and manifest: looked for, written
FUNNEL = ("crawl", "match", "balance", "download", "dedupe", "trim", "shard")  # from links to pairs
DROPPING = ("crawl", "match", "balance", "download", "dedupe", "trim")  # steps that keep a sample of what left, in a file


class Queries(NamedTuple):
    """The query list."""

    number: int
    per_pair: float  # of a matched pair
    head_share: float  # of the queries: those over the limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """The size of one step, on any machines."""

    step: PlanStep
    rows_in: float
    rows_out: float
    tasks: int
    chains: int  # of tasks that are done one after another: no more workers than these
    data_files: float  # of all tasks
    groups: int  # row groups of a part
    bytes_out: float
    footer_bytes: float  # of one part

    @property
    def part_bytes(self) -> float:
        """Of a part's Parquet file or, with tars, both."""
        return self.bytes_out / self.tasks


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """One step on the chosen nodes."""

    volume: Volume
    core_seconds: float
    workers: int
    seconds: float
    binds: str  # what it waits for most: cores, tasks, memory, network, dispatch or start-up
    traffic: Traffic
    wire_bytes: float  # from the web or the archives' store


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A build on `nodes` nodes."""

    nodes: int
    links: float
    archives: int
    steps: list[StepPlan]

    @property
    def seconds(self) -> float:
        """From the first task to the last."""
        return sum(step.seconds for step in self.steps)

    @property
    def traffic(self) -> Traffic:
        """Of all steps."""
        total = Traffic()
        for step in self.steps:
            total = total.plus(step.traffic)
        return total

    @property
    def stored_bytes(self) -> float:
        """Of all folders."""
        return sum(step.volume.bytes_out for step in self.steps)


def links_for(pairs: float, rates: Mapping[str, Rate]) -> float:
    """Links that are needed for so many pairs."""
    links = pairs
    for stage in FUNNEL:
        if not rates[stage].survival:
            raise InputError(f"plan: nothing survives {stage}: no number of links gives {pairs:,.0f} pairs")
        links /= rates[stage].survival
    return links


def volumes(links: float, archives: int, rates: Mapping[str, Rate], recipe: DatasetConfig, queries: Queries) -> dict[str, Volume]:
    """The size of every step, by folder, in order."""
    made: dict[str, Volume] = {}
    for step in STEPS:
        first = step.reads[0].folder
        rows_in = links if first == ARCHIVES else made[first].rows_out
        tasks, chains = _tasks(step, made, archives, rows_in, recipe)
        rate = rates[step.stage]
        rows_out = _rows_out(step, rows_in, tasks, rate, recipe, queries)
        groups = _groups(step, recipe)
        shards = max(1, ceil(rows_out / recipe.shard.pairs_per_shard))
        footer_bytes = rate.footer_bytes_per_group * groups
        num_files = 2 * shards if step.cut == "groups" else tasks * (2 if step.stage == "download" else 1)
        made[step.folder] = Volume(
            step=step, rows_in=rows_in, rows_out=rows_out, tasks=tasks, chains=chains, data_files=num_files, groups=groups,
            bytes_out=rows_out * rate.bytes_per_row + tasks * footer_bytes, footer_bytes=footer_bytes,
        )  # fmt: skip
    return made


def _tasks(step: PlanStep, made: Mapping[str, Volume], archives: int, rows_in: float, recipe: DatasetConfig) -> tuple[int, int]:
    """Tasks and chains of a step."""
    first = step.reads[0].folder
    parts = archives if first == ARCHIVES else made[first].tasks
    if step.cut == "slices":
        return parts * max(1, ceil(rows_in / parts / recipe.download.pairs_per_part)), parts
    tasks = {
        "archives": archives,
        "same": parts,
        "hosts": recipe.match.num_buckets,
        "bands": recipe.dedupe.num_buckets,
        "query_buckets": recipe.balance.num_query_buckets,
        "runs": max(1, min(parts, ceil(rows_in / RUN_ROWS))),
        "groups": max(1, ceil(parts / recipe.shard.parts_per_group)),
    }[step.cut]
    return tasks, tasks


def _groups(step: PlanStep, recipe: DatasetConfig) -> int:
    if step.stage == "match":
        return recipe.match.num_buckets
    if step.stage == "dedupe_bands":
        return recipe.dedupe.num_buckets
    return recipe.balance.num_query_buckets if step.grows in ("counts", "draws") else 1


def _rows_out(step: PlanStep, rows_in: float, tasks: int, rate: Rate, recipe: DatasetConfig, queries: Queries) -> float:
    if step.grows == "queries":
        return queries.number
    if step.grows == "counts":  # at most: each of a task's queries once
        return tasks * min(queries.number, rows_in / tasks * queries.per_pair)
    if step.grows == "draws":  # pipeline/draws.py: in the window of each query that is over the limit
        limit = recipe.balance.max_per_query * recipe.balance.oversample
        return min(rows_in * queries.per_pair, queries.number * queries.head_share * (16 * sqrt(limit) + 64))
    return rows_in * rate.survival


def traffic_of(volume: Volume, made: Mapping[str, Volume], workers: int, queries: int) -> Traffic:
    """What a step asks of the store, its inputs from elsewhere left out."""
    step, tasks = volume.step, volume.tasks
    total = TRAFFIC_OF_A_STEP.plus(MISSING, tasks)  # the records that are not there yet
    total = total.plus(written(RECORD_BYTES), tasks)
    total = total.plus(written(volume.bytes_out / volume.data_files), volume.data_files)
    small = (step.stage in DROPPING) + (step.stage == "download")
    total = total.plus(written(0.0), tasks * small)
    for read in step.reads:
        if read.folder == ARCHIVES:
            continue
        if read.folder == QUERY_LIST:
            total = total.plus(whole(queries * QUERY_BYTES), workers)
            continue
        source = made[read.folder]
        total = total.plus(whole(RECORD_BYTES * source.tasks), workers)  # its manifest
        total = total.plus(_read(read, source, tasks, workers, step))
    return total


def _read(read: Read, source: Volume, tasks: int, workers: int, step: PlanStep) -> Traffic:
    file_bytes = source.part_bytes
    with_tar = source.step.stage == "download"
    index = file_bytes / 50 if with_tar else file_bytes  # rows of a folder with tars are a small share of its bytes
    if read.how == "buckets":
        return Traffic().plus(row_group(file_bytes, source.footer_bytes, source.groups), tasks * source.tasks)
    if read.how == "slices":
        return Traffic().plus(whole(index), tasks)
    if read.how == "side":
        return Traffic().plus(whole(index), source.tasks * workers)
    again = 1.25 if step.cut == "groups" else 1.0  # a part that is cut is read by two tasks: one of parts_per_group
    if read.how == "images":
        return Traffic().plus(whole(file_bytes / 2), 2 * source.tasks * again)
    return Traffic().plus(whole(index), source.tasks * again)


def workers_on(nodes: int, volume: Volume, made: Mapping[str, Volume], config: BuildConfig) -> tuple[int, str]:
    """How many workers of a step run at once, and what bounds their number."""
    step, node = volume.step, config.node
    held = sum(made[read.folder].rows_out for read in step.reads if read.how == "side" and read.folder in BY_FOLDER)
    rows = volume.rows_in / volume.tasks
    need = WORKER_BYTES + rows * step.bytes_per_task_row + held * step.bytes_per_side_row
    fit = floor(node.memory_gb * 1e9 / need)
    if not fit:
        raise InputError(
            f"plan: a worker of {step.stage} takes {need / 1e9:,.0f} GB ({rows:,.0f} rows of its task, {held:,.0f} held), a "
            f"node has {node.memory_gb:,.0f} GB: plan larger nodes, or a recipe with more buckets"
        )
    slots = nodes * min(node.cores, fit)
    if volume.chains <= slots:
        return volume.chains, "tasks" if volume.chains < slots else "cores"
    return slots, "memory" if fit < node.cores else "cores"


def step_plan(volume: Volume, made: Mapping[str, Volume], rate: Rate, nodes: int, config: BuildConfig, queries: int) -> StepPlan:
    """One step on so many nodes."""
    workers, bound = workers_on(nodes, volume, made, config)
    core_seconds = rate.seconds(volume.rows_in, volume.tasks)
    traffic = traffic_of(volume, made, workers, queries)
    wire_bytes = 0.0
    if volume.step.cut == "archives":
        wire_bytes = volume.rows_in * config.archive_bytes_per_row
    elif volume.step.stage == "download":
        wire_bytes = volume.rows_in * (config.fetched_bytes_per_row or DECODED * rate.bytes_per_row)
    bytes_per_second = nodes * config.node.network_gbit_per_second * 1e9 / 8 * config.utilisation
    times = {
        bound: ceil(volume.chains / workers) * core_seconds / volume.chains / config.utilisation,
        "network": (traffic.bytes_read + traffic.bytes_written + wire_bytes) / bytes_per_second,
        "dispatch": volume.tasks / config.tasks_per_second,
    }
    start = rate.pool_seconds + rate.start_seconds
    binds = max(times, key=lambda name: times[name])
    return StepPlan(
        volume=volume, core_seconds=core_seconds + rate.start_seconds * workers, workers=workers,
        seconds=times[binds] + start, binds=binds if times[binds] >= start else "start-up", traffic=traffic,
        wire_bytes=wire_bytes,
    )  # fmt: skip


def on_nodes(nodes: int, made: Mapping[str, Volume], rates: Mapping[str, Rate], config: BuildConfig, queries: int) -> Plan:
    """The whole build on so many nodes."""
    steps = [step_plan(volume, made, rates[volume.step.stage], nodes, config, queries) for volume in made.values()]
    crawl = steps[0].volume
    return Plan(nodes=nodes, links=crawl.rows_in, archives=crawl.tasks, steps=steps)


def fewest_nodes(made: Mapping[str, Volume], rates: Mapping[str, Rate], config: BuildConfig, queries: int) -> Plan:
    """The plan with the fewest nodes that meets the deadline; with max_nodes where none does."""
    low, high = 1, config.max_nodes
    while low < high:
        middle = (low + high) // 2
        if on_nodes(middle, made, rates, config, queries).seconds <= config.deadline_hours * 3600:
            high = middle
        else:
            low = middle + 1
    return on_nodes(low, made, rates, config, queries)


def cost(plan: Plan, config: BuildConfig) -> dict[str, float]:
    """What the build costs, by what is paid for."""
    traffic, store = plan.traffic, config.store
    return {
        "nodes": plan.nodes * plan.seconds / 3600 * config.node.price_per_hour,
        "puts": traffic.puts / 1000 * store.per_1000_put,
        "gets": traffic.gets / 1000 * store.per_1000_get,
        "storage": plan.stored_bytes / 1e9 * store.per_gb_month * store.months,
    }
