"""What a finished root's manifests say of each step: rates, shares, sizes; from one run, to be scaled to another.

in      a root whose folders have their manifests (local or s3://), or the JSON of an earlier plan, or STAGE.FIELD=VALUE
out     a Rate for each step of steps.STEPS
law     start-up is told from work by pace: parts that took more than STARTING times as long for a row as the faster half are
        the first of their workers (compilers, tables, models); what they took beyond the pace of the others is start-up. Not
        for WAITING steps, whose slow parts are slow servers
law     seconds of a part are those of a worker, waits included; a run with more workers than cores counts them too high, so
        they are cut to the cores' time where their number is given
law     seconds = parts x part_seconds + rows / rows_per_second: the two are told apart where runs with parts of several sizes
        are given; from one run all is put on the rows, so that rates from small parts are too low for large ones
"""

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import ceil
from typing import NamedTuple

from infra.plan.steps import BY_FOLDER, BY_STAGE, NOT_PLANNED, STEPS, PlanStep
from pipeline import storage
from pipeline.errors import InputError
from pipeline.manifest import Dataset, Manifest, Part

STARTING = 3.0  # times the pace of the faster half
WAITING = ("download",)
INSTANT_SECONDS = 1e-9  # of a row, where the clock saw nothing
FOOTER_BYTES_PER_GROUP = 400.0  # of a Parquet file's row group, where none was measured
SHOWN = 3  # of many things that are missing
PARQUET_TAIL = 8  # the footer's length and the magic
NUMBERED = re.compile(r"\d+_")  # names of the folders that a build makes


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one step takes and gives."""

    rows_per_second: float  # of one warm worker
    survival: float  # rows out over rows in
    bytes_per_row: float  # of a row that comes out: data files without their footers
    part_seconds: float = 0.0  # of each part, whatever its rows
    start_seconds: float = 0.0  # of each worker
    pool_seconds: float = 0.0  # of the step beyond its workers' time: processes start, the last part ends
    footer_bytes_per_group: float = FOOTER_BYTES_PER_GROUP
    rows_per_part: float = 0.0  # of the parts that were measured; 0: it was given by hand

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not 0 <= getattr(self, f.name) < float("inf")]
        if wrong or not self.rows_per_second:
            raise InputError(
                "plan: a rate's numbers must be finite and not negative, rows_per_second above 0; "
                f"found {', '.join(f'{name}={getattr(self, name)}' for name in wrong or ['rows_per_second'])}"
            )

    def seconds(self, rows: float, parts: int) -> float:
        """Of warm workers, for so many rows in so many parts."""
        return rows / self.rows_per_second + parts * self.part_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One finished step."""

    step: PlanStep
    manifest: Manifest
    footer_bytes: float  # of one part, without row groups' share where there is one group

    @property
    def tasks(self) -> int:
        """Parts."""
        return len(self.manifest.parts)

    @property
    def seconds(self) -> float:
        """All workers' time."""
        return sum(part.seconds for part in self.manifest.parts)

    @property
    def num_bytes(self) -> int:
        """Of the data files."""
        return sum(data_bytes(part) for part in self.manifest.parts)


def data_bytes(part: Part) -> int:
    """Bytes of a part's data files."""
    return sum(file.num_bytes for file in part.files if not file.name.startswith("_"))


def read(root: str) -> dict[str, Seen]:
    """The finished steps of a root by stage; InputError where one is missing, or unknown here."""
    seen = {step.stage: _seen(root, step) for step in STEPS}
    if not storage.is_remote(root):
        known = {*BY_FOLDER, *NOT_PLANNED}
        unknown = [name for name in storage.names(root) if NUMBERED.match(name) and name not in known]
        if unknown:
            raise InputError(f"plan: {root} has folders that no plan knows: {', '.join(unknown)}; they are of another version")
    return seen


def _seen(root: str, step: PlanStep) -> Seen:
    dataset = Dataset(storage.join(root, step.folder))
    manifest = dataset.manifest
    if manifest.stage != step.stage:
        raise InputError(f"plan: expected the step {step.stage} in {dataset.folder}, found {manifest.stage}")
    part = max(manifest.parts, key=lambda part: part.rows_out, default=None)
    name = next((file.name for file in part.files if file.name.endswith(".parquet")), "") if part else ""
    return Seen(step=step, manifest=manifest, footer_bytes=_footer_bytes(storage.join(dataset.folder, name)) if name else 0.0)


def _footer_bytes(path: str) -> float:
    with storage.open_read(path) as file:
        file.seek(-PARQUET_TAIL, 2)
        return float(struct.unpack("<I", file.read(4))[0])


def num_workers(seen: Mapping[str, Seen]) -> int:
    """The most workers that were busy at once, as far as the times tell."""
    busy = [one.seconds / one.manifest.seconds for one in seen.values() if one.manifest.seconds]
    return max(1, ceil(max(busy, default=1.0) - 0.05))


class Pace(NamedTuple):
    """The parts of a step that warm workers made, and what the others took beyond their pace."""

    parts: int
    rows: int
    seconds: float
    start_seconds: float  # of each worker


def pace(seen: Seen, workers: int, cores: int = 0) -> Pace:
    """What the parts of a finished step tell of its speed."""
    parts, wall = seen.manifest.parts, seen.manifest.seconds
    share = min(1.0, cores * wall / seen.seconds) if cores and seen.seconds else 1.0
    timed = sorted((part for part in parts if part.rows_in), key=lambda part: part.seconds / part.rows_in)
    faster = timed[: max(1, len(timed) // 2)]
    limit = STARTING * _per_row(faster)
    warm = [part for part in timed if part.seconds <= limit * part.rows_in] if seen.step.stage not in WAITING else timed
    warm = warm or faster
    chosen = {part.name for part in warm}
    beyond = sum(part.seconds - _per_row(warm) * part.rows_in for part in timed if part.name not in chosen)
    rows, seconds = sum(part.rows_in for part in warm), sum(part.seconds for part in warm)
    return Pace(len(warm), rows, seconds * share, beyond * share / max(1, min(workers, len(timed))))


def _per_row(parts: Sequence[Part]) -> float:
    rows, seconds = sum(part.rows_in for part in parts), sum(part.seconds for part in parts)
    return seconds / rows if rows else 0.0


def fit(paces: Sequence[Pace]) -> tuple[float, float]:
    """Seconds of a part and of a row, neither negative, with the smallest relative errors; all by rows where one run is known."""
    points = [(one.parts / one.seconds, one.rows / one.seconds) for one in paces if one.seconds and one.rows]
    if not points:
        return 0.0, INSTANT_SECONDS
    aa, bb, ab = (sum(p[i] * p[j] for p in points) for i, j in ((0, 0), (1, 1), (0, 1)))
    a, b = (sum(p[i] for p in points) for i in (0, 1))
    determinant = aa * bb - ab * ab
    by_rows = b / bb
    if len(points) < 2 or determinant <= 1e-9 * aa * bb:
        return 0.0, by_rows
    part, row = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    return (part, row) if part >= 0 and row > 0 else (0.0, by_rows)


def rate(runs: Sequence[Seen], workers: int, cores: int = 0) -> Rate:
    """What one step's runs tell: its speed from all of them, its shares and sizes from the last."""
    seen = runs[-1]
    manifest = seen.manifest
    if not manifest.rows_in:
        raise InputError(f"plan: {seen.step.stage} had no rows in the measured run: a larger one is needed")
    paces = [pace(one, workers, cores) for one in runs]
    part_seconds, row_seconds = fit(paces)
    used = max(1, min(workers, seen.tasks))
    return Rate(
        rows_per_second=1.0 / row_seconds,
        part_seconds=part_seconds,
        survival=manifest.rows_out / manifest.rows_in,
        bytes_per_row=max(0.0, seen.num_bytes - seen.tasks * seen.footer_bytes) / max(1, manifest.rows_out),
        start_seconds=paces[-1].start_seconds,
        pool_seconds=max(0.0, manifest.seconds - seen.seconds / used),
        footer_bytes_per_group=seen.footer_bytes / max(1, manifest.num_buckets),
        rows_per_part=manifest.rows_in / seen.tasks,
    )


def rates(roots: Sequence[str], cores: int = 0) -> dict[str, Rate]:
    """The rates of every step from finished roots, the largest last, or those in the JSON of an earlier plan."""
    if len(roots) == 1 and roots[0].endswith(".json"):
        return _from_plan(roots[0])
    runs = [read(root) for root in roots]
    workers = max(num_workers(seen) for seen in runs)
    return {step.stage: rate([seen[step.stage] for seen in runs], workers, cores) for step in STEPS}


def links_per_archive(root: str) -> float:
    """Rows that an archive gave the crawl."""
    if root.endswith(".json"):
        return _from_plan(root)["crawl"].rows_per_part
    crawl = _seen(root, BY_STAGE["crawl"])
    return crawl.manifest.rows_in / max(1, crawl.tasks)


def _from_plan(path: str) -> dict[str, Rate]:
    try:
        found = json.loads(storage.read(path))["rates"]
        return {stage: Rate(**{name: float(value) for name, value in fields_.items()}) for stage, fields_ in found.items()}
    except FileNotFoundError:
        raise InputError(f"plan: there is no {path}: give a finished root, or the JSON of an earlier plan") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"plan: {path} is not the JSON of a plan: {error!r}") from None


def with_settings(found: Mapping[str, Rate], settings: Sequence[str]) -> dict[str, Rate]:
    """The rates with STAGE.FIELD=VALUE in place of what was measured; InputError where a step has none."""
    names = {f.name for f in fields(Rate)}
    given: dict[str, dict[str, float]] = {}
    for text in settings:
        key, _, value = text.partition("=")
        stage, _, name = key.partition(".")
        if stage not in BY_STAGE or name not in names:
            raise InputError(
                f"plan: --set expected STAGE.FIELD=VALUE, found {text!r}; "
                f"stages: {', '.join(BY_STAGE)}; fields: {', '.join(sorted(names))}"
            )
        try:
            given.setdefault(stage, {})[name] = float(value)
        except ValueError:
            raise InputError(f"plan: --set {key} expected a number, found {value!r}") from None
    merged = {}
    needed = ("rows_per_second", "survival", "bytes_per_row")
    missing = [f"{s}.{n}" for s in BY_STAGE if s not in found for n in needed if n not in given.get(s, {})]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise InputError(
            f"plan: no rates of {', '.join(missing[:SHOWN])}{more}: give --measured ROOT, or each by --set STAGE.FIELD=VALUE"
        )
    for stage in BY_STAGE:
        values = given.get(stage, {})
        merged[stage] = replace(found[stage], **values) if stage in found else Rate(**values)
    return merged


def to_json(found: Mapping[str, Rate]) -> dict[str, dict[str, float]]:
    """The rates as JSON values."""
    return {stage: asdict(one) for stage, one in found.items()}
