"""Plans and comparisons as tables for people, and as JSON values for programs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from infra.plan.build import DECODED, FUNNEL, WORKER_BYTES, Plan, StepPlan, cost
from infra.plan.check import Line, errors
from infra.plan.config import BuildConfig, TrainPlanConfig
from infra.plan.measured import Rate, to_json
from infra.plan.training import GPU_BYTES_PER_SECOND, OPTIMISER_BYTES, TrainPlan, between

LEAST_SECONDS = 1.0  # of worker time, under which a prediction of it is told and not judged
UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def amount(value: float) -> str:
    """A number in three digits with a letter for its thousands."""
    for letter, size in UNITS:
        if abs(value) >= size:
            return f"{value / size:,.3g}{letter}" if value < 1000 * size else f"{value / size:,.0f}{letter}"
    return f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
             for row in [head, *rows]]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def build_table(plan: Plan, config: BuildConfig) -> str:
    """A build, a line a step, and its sums."""
    head = ["step", "rows in", "rows out", "tasks", "core hours", "hours", "binds", "read B", "written B", "PUT", "GET", "cost"]
    rows = [_step_row(step, plan.nodes, config) for step in plan.steps]
    paid = cost(plan, config)
    total = plan.traffic
    core_hours = sum(step.core_seconds for step in plan.steps) / 3600
    moved = [amount(value) for value in (total.bytes_read, total.bytes_written, total.puts, total.gets)]
    rows.append(
        ["all", "", "", "", f"{core_hours:,.1f}", f"{plan.seconds / 3600:,.2f}", "", *moved, f"{sum(paid.values()):,.0f}"]
    )
    met = plan.seconds <= config.deadline_hours * 3600
    worst = max(plan.steps, key=lambda step: step.seconds)
    lines = [
        table(head, rows),
        "",
        f"{plan.links:,.0f} links in {plan.archives:,} archives -> {plan.steps[-3].volume.rows_out:,.0f} pairs; "
        f"{plan.stored_bytes / 1e12:,.2f} TB in all folders",
        f"nodes: {plan.nodes:,} of {config.node.cores} cores, {plan.seconds / 3600:,.1f} h of {config.deadline_hours:,.0f} h",
        "cost: " + ", ".join(f"{name} {value:,.0f}" for name, value in paid.items()),
    ]
    if not met:
        lines.append(
            f"deadline: missed with max_nodes {config.max_nodes:,}; {worst.volume.step.stage} alone takes "
            f"{worst.seconds / 3600:,.1f} h and is bound by {worst.binds}"
        )
    return "\n".join(lines)


def _step_row(step: StepPlan, nodes: int, config: BuildConfig) -> list[str]:
    volume, traffic = step.volume, step.traffic
    paid = (
        nodes * step.seconds / 3600 * config.node.price_per_hour
        + traffic.puts / 1000 * config.store.per_1000_put
        + traffic.gets / 1000 * config.store.per_1000_get
        + volume.bytes_out / 1e9 * config.store.per_gb_month * config.store.months
    )
    return [
        volume.step.stage, amount(volume.rows_in), amount(volume.rows_out), f"{volume.tasks:,}",
        f"{step.core_seconds / 3600:,.1f}", f"{step.seconds / 3600:,.2f}", step.binds,
        *(amount(value) for value in (traffic.bytes_read + step.wire_bytes, traffic.bytes_written, traffic.puts, traffic.gets)),
        f"{paid:,.0f}",
    ]  # fmt: skip


def build_assumptions(config: BuildConfig, rates: Mapping[str, Rate], queries: int) -> list[str]:
    """Everything that the plan takes for granted."""
    by_hand = ", ".join(config.set) or "nothing"
    parts = ", ".join(f"{name} {rates[name].rows_per_part:,.0f}" for name in FUNNEL if rates[name].rows_per_part)
    wire = (
        f"{config.fetched_bytes_per_row:,.0f} bytes" if config.fetched_bytes_per_row else f"{DECODED:g} times what is kept of it"
    )
    return [
        f"rates, shares and sizes: {' '.join(config.measured) or 'none measured'}; by hand: {by_hand}",
        "a worker's rate is that of one core; from one run it holds its parts' overhead",
        f"rows of a part where it was measured: {parts or 'not measured'}",
        f"shares of rows that stay are the measured data's (the mini web is not the web: measure a pilot): {_shares(rates)}",
        "balance leaves out more the larger the build is: give its share by --set balance.survival",
        f"buckets, parts and shards: recipe {config.recipe}; {queries:,} queries, {config.queries_per_pair:g} of them in a pair",
        f"utilisation {config.utilisation:.0%} of cores and network; tasks of a step are equal, hosts evenly spread over buckets",
        f"network {config.node.network_gbit_per_second:g} Gbit/s a node; {config.archive_bytes_per_row:,.0f} bytes a link",
        f"a picture over the wire is {wire}; {config.head_share:.1%} of the queries are over the limit",
        "a row group of a file costs up to 4 requests, the footer of the file and its own bytes",
        f"Ray Data starts {config.tasks_per_second:g} tasks a second; a worker holds {WORKER_BYTES / 1e9:g} GB, and its rows",
        f"nothing fails; every folder is kept {config.store.months:g} months; all nodes stay to the end; traffic between regions "
        "and to the web costs nothing; the query list is there",
        "servers of pictures are as slow as in the measured run; no host has so many pairs that its manners bind",
    ]


def _shares(rates: Mapping[str, Rate]) -> str:
    return ", ".join(f"{name} {rates[name].survival:.3f}" for name in FUNNEL)


def build_json(plan: Plan, config: BuildConfig, rates: Mapping[str, Rate], assumptions: list[str]) -> dict[str, Any]:
    """A build for programs."""
    steps = [
        {
            "stage": step.volume.step.stage, "folder": step.volume.step.folder, "rows_in": step.volume.rows_in,
            "rows_out": step.volume.rows_out, "tasks": step.volume.tasks, "bytes_out": step.volume.bytes_out,
            "core_seconds": step.core_seconds, "workers": step.workers, "seconds": step.seconds, "binds": step.binds,
            "wire_bytes": step.wire_bytes, **step.traffic._asdict(),
        }
        for step in plan.steps
    ]  # fmt: skip
    return {
        "nodes": plan.nodes, "seconds": plan.seconds, "links": plan.links, "archives": plan.archives, "steps": steps,
        "meets_deadline": plan.seconds <= config.deadline_hours * 3600, "cost": cost(plan, config),
        "stored_bytes": plan.stored_bytes, "rates": to_json(rates), "assumptions": assumptions, "config": asdict(config),
    }  # fmt: skip


def train_table(plans: Sequence[TrainPlan]) -> str:
    """A training run, a line for each number of GPUs."""
    times = ["compute ms", "loss", "gather", "gradients", "optimiser", "step ms"]
    head = ["GPUs", "nodes", *times, "pairs/s", "efficiency", "binds", "hours", "loader", "Gbit/s a node", "cost"]
    rows = []
    for plan in plans:
        times = [f"{1000 * seconds:,.1f}" for seconds in (*plan.step, plan.step.total)]
        rows.append(
            [f"{plan.gpus:,}", f"{plan.nodes:,}", *times, f"{plan.pairs_per_second:,.0f}", f"{plan.efficiency:.0%}", plan.binds,
             f"{plan.hours:,.1f}", f"{plan.loader_cores_share:.0%}", f"{plan.read_gbit_per_second:,.2f}", f"{plan.cost:,.0f}"]
        )  # fmt: skip
    return table(head, rows)


def train_assumptions(config: TrainPlanConfig, plans: Sequence[TrainPlan]) -> list[str]:
    """Everything that the plan takes for granted."""
    links, first = config.links, plans[0]
    speed = (
        f"{config.pairs_per_second:,.0f} pairs/s, measured on one GPU"
        if config.pairs_per_second
        else f"{config.mfu:.0%} of {config.peak_tflops:,.0f} TFLOP/s in the towers, twice as much back as forward, full texts"
    )
    return [
        f"{first.num_steps:,} steps: {config.epochs:g} epochs of {config.pairs:,.0f} pairs; a GPU does {speed}",
        f"a rank with fewer pairs computes as fast a pair; the slowest rank takes {config.slowest_rank:g} times the mean",
        f"rings: {links.inside_gbytes_per_second:g} GB/s inside a node of {links.gpus_per_node}, "
        f"{between(config):g} between nodes, {links.latency_seconds * 1e6:g} us a message; no congestion",
        f"gradients and features travel as float32; {config.overlap:.0%} of the gradients' reduction hides behind the way back",
        f"the optimiser moves {OPTIMISER_BYTES:g} bytes a weight at {GPU_BYTES_PER_SECOND / 1e12:g} TB/s",
        f"a core decodes {config.decoded_pairs_per_core:,.0f} pairs/s; a pair is {config.bytes_per_pair:,.0f} bytes; every "
        "epoch reads the shards again",
        f"a checkpoint takes {config.checkpoint_seconds:g} s from the steps; nothing fails",
    ]


def train_json(config: TrainPlanConfig, plans: Sequence[TrainPlan], assumptions: list[str]) -> dict[str, Any]:
    """A training run for programs."""
    rows = [{**asdict(plan), "step": {**plan.step._asdict(), "total": plan.step.total}} for plan in plans]
    return {"plans": rows, "assumptions": assumptions, "config": asdict(config)}


def check_table(lines: list[Line]) -> str:
    """Predicted beside seen, a line a step."""
    head = ["step", "rows out", "seen", "bytes", "seen", "worker s", "seen", "ratio", "wall s", "seen", "ratio"]
    rows = []
    for line in [*lines, _sums(lines)]:
        cells = [_pair(line, name, amount) for name in ("rows_out", "bytes")]
        cells += [[*_pair(line, name, "{:,.2f}".format), _ratio(line, name)] for name in ("worker_seconds", "wall_seconds")]
        rows.append([str(line["stage"]), *(cell for some in cells for cell in some)])
    return table(head, rows)


def _sums(lines: list[Line]) -> Line:
    names = [f"{name}_{side}" for name in ("worker_seconds", "wall_seconds") for side in ("predicted", "seen")]
    return {
        "stage": "all",
        **{name: sum(float(line[name]) for line in lines) for name in names if all(name in line for line in lines)},
    }


def _pair(line: Line, name: str, text: Callable[[float], str]) -> list[str]:
    values = [line.get(f"{name}_{side}") for side in ("predicted", "seen")]
    return ["" if value is None else text(float(value)) for value in values]


def _ratio(line: Line, name: str) -> str:
    seen = float(line.get(f"{name}_seen", 0.0))
    return f"{float(line[f'{name}_predicted']) / seen:.2f}" if seen else ""


def check_summary(lines: list[Line]) -> list[str]:
    """How far the predictions are off: predicted over seen."""
    told = []
    for measure, least in (("rows_out", 0.0), ("bytes", 0.0), ("worker_seconds", LEAST_SECONDS), ("wall_seconds", LEAST_SECONDS)):
        found = errors(lines, measure, least)
        if not found:
            continue
        low, high = min(found, key=lambda name: found[name]), max(found, key=lambda name: found[name])
        above = f" above {least:g}" if least else ""
        told.append(
            f"{measure}{above}: predicted over seen {median(found.values()):.2f} in the median of {len(found)} steps, "
            f"from {found[low]:.2f} ({low}) to {found[high]:.2f} ({high})"
        )
    return told
