"""The plan: its arithmetic by hand, its laws, what it refuses, and its predictions of runs that follow a known law."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.plan import build, check, measured
from infra.plan.__main__ import main
from infra.plan.build import Queries, Volume
from infra.plan.config import BuildConfig, CheckConfig, NodeConfig, StoreConfig
from infra.plan.measured import Rate
from infra.plan.steps import BY_FOLDER, BY_STAGE, STEPS
from infra.plan.store import MISSING, TAIL_BYTES, row_group, written
from pipeline import config as recipes
from pipeline.errors import InputError
from tests.infra.plan_root import PARTS, SURVIVAL, Law, write_root

NODE = NodeConfig(price_per_hour=2.0, cores=4, memory_gb=4096.0, network_gbit_per_second=8.0)
STORE = StoreConfig(per_gb_month=0.02, per_1000_put=0.005, per_1000_get=0.0004)
PRICES = ["--node.price-per-hour=2", "--store.per-gb-month=0.02", "--store.per-1000-put=0.005", "--store.per-1000-get=0.0004"]
QUERIES = Queries(1000, 3.5, 0.03)


def config(**values: Any) -> BuildConfig:
    return BuildConfig(node=NODE, store=STORE, **values)


def some_rates(seed: int) -> dict[str, Rate]:
    draw = np.random.default_rng(seed)
    return {
        step.stage: Rate(
            rows_per_second=float(10 ** draw.uniform(2, 5)), survival=float(draw.uniform(0.2, 1.0)),
            bytes_per_row=float(draw.uniform(10, 20_000)), start_seconds=float(draw.uniform(0, 60)),
            part_seconds=float(draw.uniform(0, 1)), pool_seconds=float(draw.uniform(0, 20)),
        )
        for step in STEPS
    }  # fmt: skip


def made_of(rates: dict[str, Rate], pairs: float = 1e6) -> dict[str, Volume]:
    links = build.links_for(pairs, rates)
    return build.volumes(links, math.ceil(links / 10_000), rates, recipes.pilot(), QUERIES)


def test_a_step_by_hand() -> None:
    """16 archives of 1,000 links on 2 nodes of 4 cores: two rounds of 8 tasks, each 1,000 / 50 + 5 = 25 s, at 80%: 62.5 s."""
    rate = Rate(rows_per_second=50, survival=0.5, bytes_per_row=100, part_seconds=5, start_seconds=30, pool_seconds=7)
    volume = Volume(
        step=BY_STAGE["crawl"], rows_in=16_000, rows_out=8_000, tasks=16, chains=16, data_files=16, groups=1, bytes_out=800_000,
        footer_bytes=0.0,
    )  # fmt: skip
    asked = config(archive_bytes_per_row=400, utilisation=0.8, tasks_per_second=31)
    got = build.step_plan(volume, {volume.step.folder: volume}, rate, 2, asked, queries=10)
    assert got.workers == 8
    assert got.binds == "cores"
    assert got.seconds == pytest.approx(62.5 + 30 + 7)
    assert got.core_seconds == pytest.approx(16 * 25 + 8 * 30)
    assert got.wire_bytes == 6_400_000
    # A part's file, its sample of what left and its record; for each task a look for the record, and 4 and 6 of the step itself.
    assert got.traffic.puts == 16 * 3 + 16 + 4
    assert got.traffic.gets == 16 + 6
    assert got.traffic.bytes_written == pytest.approx(800_000 + 16 * build.RECORD_BYTES)


def test_cost_by_hand() -> None:
    rates = {step.stage: Rate(rows_per_second=1000, survival=1.0, bytes_per_row=10) for step in STEPS}
    plan = build.on_nodes(3, made_of(rates), rates, config(), 1000)
    paid = build.cost(plan, replace(config(), store=replace(STORE, months=2.0)))
    assert paid["nodes"] == pytest.approx(3 * plan.seconds / 3600 * 2.0)
    assert paid["puts"] == pytest.approx(plan.traffic.puts * 0.005 / 1000)
    assert paid["gets"] == pytest.approx(plan.traffic.gets * 0.0004 / 1000)
    assert paid["storage"] == pytest.approx(plan.stored_bytes / 1e9 * 0.02 * 2)


def test_tasks_are_those_that_the_recipe_makes() -> None:
    rates = {step.stage: Rate(rows_per_second=1000, survival=1.0, bytes_per_row=10) for step in STEPS}
    rates["dedupe_bands"] = replace(rates["dedupe_bands"], survival=5.0)
    recipe = recipes.wit()
    made = build.volumes(400e6, 40_000, rates, recipe, Queries(500_000, 3.5, 0.032))
    tasks = {volume.step.stage: volume.tasks for volume in made.values()}
    assert tasks["crawl"] == tasks["match"] == 40_000
    assert tasks["balance_count"] == tasks["balance"] == 1024
    assert tasks["balance_limits"] == 16
    assert tasks["download"] == tasks["dedupe"] == 1024 * math.ceil(400e6 / 1024 / 10_000)
    assert made["4_images"].chains == 1024
    assert tasks["shard"] == tasks["download"] // 4
    assert made["6_shards"].data_files == 2 * 40_000
    assert made["5_unique/_bands"].rows_out == 5 * 400e6
    assert made["2_matched"].groups == 1024
    assert made["5_unique/_counts"].tasks == 400


@pytest.mark.parametrize("seed", range(20))
def test_more_nodes_never_take_longer_and_a_build_is_whole(seed: int) -> None:
    rates = some_rates(seed)
    made = made_of(rates)
    asked = config(queries=1000)
    seconds = [build.on_nodes(nodes, made, rates, asked, 1000).seconds for nodes in (1, 2, 3, 5, 8, 20, 100, 1000)]
    assert seconds == sorted(seconds, reverse=True)
    assert made["6_shards"].rows_out == pytest.approx(1e6)
    for volume in made.values():
        assert volume.tasks >= volume.chains >= 1


@pytest.mark.parametrize("seed", range(10))
def test_the_fewest_nodes_meet_the_deadline_and_one_less_does_not(seed: int) -> None:
    rates = some_rates(seed)
    made = made_of(rates, 1e7)
    least = build.on_nodes(10_000, made, rates, config(), 1000).seconds
    asked = config(deadline_hours=2 * least / 3600)
    plan = build.fewest_nodes(made, rates, asked, 1000)
    assert plan.seconds <= 2 * least
    assert plan.nodes == 1 or build.on_nodes(plan.nodes - 1, made, rates, asked, 1000).seconds > 2 * least
    missed = build.fewest_nodes(made, rates, config(deadline_hours=least / 3600 / 2, max_nodes=10_000), 1000)
    assert missed.nodes == 10_000


@pytest.mark.parametrize("seed", range(10))
def test_more_pairs_and_slower_stages_cost_more(seed: int) -> None:
    rates = some_rates(seed)
    stage = list(BY_STAGE)[seed]
    slower = {**rates, stage: replace(rates[stage], rows_per_second=rates[stage].rows_per_second / 100)}
    base, more, slow = (
        build.on_nodes(4, made_of(given, pairs), given, config(), 1000)
        for given, pairs in ((rates, 1e6), (rates, 3e6), (slower, 1e6))
    )
    assert sum(build.cost(more, config()).values()) > sum(build.cost(base, config()).values())
    assert more.links == pytest.approx(3 * base.links)
    assert slow.seconds >= base.seconds
    assert sum(step.core_seconds for step in slow.steps) > sum(step.core_seconds for step in base.steps)


def test_a_worker_that_does_not_fit_a_node_is_refused_and_memory_bounds_workers() -> None:
    rates = {step.stage: Rate(rows_per_second=1000, survival=1.0, bytes_per_row=10) for step in STEPS}
    made = made_of(rates, 1e9)
    with pytest.raises(InputError, match=r"a worker of \w+ takes .* GB .* node has 2 GB"):
        build.on_nodes(1, made, rates, replace(config(), node=replace(NODE, memory_gb=2.0)), 1000)
    small = replace(config(), node=replace(NODE, cores=64, memory_gb=40.0))
    workers, bound = build.workers_on(10, made["5_unique/_edges"], made, small)
    need = build.WORKER_BYTES + made["5_unique/_edges"].rows_in / made["5_unique/_edges"].tasks * 100
    assert (workers, bound) == (min(64, 10 * math.floor(40e9 / need)), "memory" if 10 * math.floor(40e9 / need) < 64 else "tasks")


def test_requests_of_files_and_row_groups() -> None:
    assert written(10).puts == 1
    assert written(2 * (32 << 20)).puts == 2 + 2
    assert written(100 << 20).puts == 4 + 2
    assert tuple(MISSING)[:2] == (1, 1)
    assert row_group(1000, 100, 1) == (0, 2, 1000, 0)
    assert row_group(1e6, 1000, 4).gets == 3
    assert row_group(1e6, 1000, 4).bytes_read == TAIL_BYTES + (1e6 - 1000) / 4
    assert row_group(1e9, 1e6, 4).gets == 4
    assert row_group(1e9, 1e6, 4).bytes_read == TAIL_BYTES + 1e6 + (1e9 - 1e6) / 4


@pytest.mark.parametrize("start", [0.0, 30.0])
def test_a_root_tells_the_law_that_it_was_made_by(tmp_path: Path, start: float) -> None:
    root = write_root(tmp_path / "root", 80_000, Law(start_seconds=start))
    rates = measured.rates([root])
    for stage in ("crawl", "match", "balance", "dedupe"):
        assert rates[stage].rows_per_second == pytest.approx(1000, rel=1e-6)
        assert rates[stage].start_seconds == pytest.approx(start)
        assert rates[stage].pool_seconds == pytest.approx(0.5)
        assert rates[stage].survival == pytest.approx(SURVIVAL[stage], rel=1e-3)
        assert rates[stage].bytes_per_row == pytest.approx(50)
    assert measured.links_per_archive(root) == 80_000 / PARTS


def test_two_roots_tell_parts_from_rows(tmp_path: Path) -> None:
    law = Law(part_seconds=0.7)
    small, large = (write_root(tmp_path / str(links), links, law) for links in (8_000, 80_000))
    both = measured.rates([small, large])["crawl"]
    assert both.part_seconds == pytest.approx(0.7)
    assert both.rows_per_second == pytest.approx(1000)
    one = measured.rates([small])["crawl"]
    assert one.rows_per_second == pytest.approx(1000 / (0.001 + 0.7 / 1000) / 1000)


def test_more_workers_than_cores_are_counted_as_the_cores_time(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", 80_000, Law(workers=4, pool_seconds=0.0))
    assert measured.rates([root])["crawl"].rows_per_second == pytest.approx(1000)
    assert measured.rates([root], cores=2)["crawl"].rows_per_second == pytest.approx(2000)


def test_runs_that_follow_the_law_are_predicted(tmp_path: Path) -> None:
    law = Law(part_seconds=0.3, start_seconds=20.0)
    roots = [write_root(tmp_path / str(links), links, law) for links in (4_000, 16_000, 400_000)]
    lines = check.of_another(CheckConfig(measured=tuple(roots[:2]), against=roots[2]))
    by_stage = {line["stage"]: line for line in lines}
    for stage in ("crawl", "match", "balance", "download", "dedupe", "trim", "shard"):
        line = by_stage[stage]
        assert line["rows_out_predicted"] == pytest.approx(line["rows_out_seen"], rel=1e-3)
        assert line["bytes_predicted"] == pytest.approx(line["bytes_seen"], rel=0.05)
    for stage in ("crawl", "match"):  # whose tasks are as many as the root's parts
        assert by_stage[stage]["worker_seconds_predicted"] == pytest.approx(
            float(by_stage[stage]["worker_seconds_seen"]), rel=0.01
        )
        assert by_stage[stage]["wall_seconds_predicted"] == pytest.approx(float(by_stage[stage]["wall_seconds_seen"]), rel=0.01)
    halves = check.of_its_half(CheckConfig(against=write_root(tmp_path / "even", 400_000, Law())))
    for line in halves:
        assert line["worker_seconds_predicted"] == pytest.approx(float(line["worker_seconds_seen"]), rel=0.2)


def test_the_second_half_of_a_training_is_predicted_by_the_first(tmp_path: Path) -> None:
    assert check.of_training(str(tmp_path)) == []
    (tmp_path / "train").mkdir()
    events = [
        {"run": "r", "step": s, "samples_seen": 100 * s, "pairs_per_second": 50.0 if s <= 6 else 25.0} for s in range(1, 11)
    ]
    path = tmp_path / "train" / "events.jsonl"
    path.write_text("\n".join(json.dumps(event) for event in events))
    (line,) = check.of_training(str(tmp_path))
    assert line["wall_seconds_predicted"] == pytest.approx(4 * 100 / 50)
    assert line["wall_seconds_seen"] == pytest.approx(4 * 100 / 25)
    path.write_bytes(b'{"pairs_per_second": "x"}\n\xff')
    with pytest.raises(InputError, match="is no log of a training run"):
        check.of_training(str(tmp_path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"pairs": float("nan")}, "pairs must be at least 1"),
        ({"utilisation": 0}, "utilisation"),
        ({"deadline_hours": -1}, "deadline_hours"),
        ({"links_per_archive": -1}, "must not be negative"),
        ({"head_share": 2}, "head_share"),
    ],
)
def test_nonsense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**values)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("crawl", "expected STAGE.FIELD=VALUE"),
        ("swim.survival=1", "expected STAGE.FIELD=VALUE"),
        ("crawl.survival=many", "expected a number, found 'many'"),
        ("crawl.survival=nan", "must be finite and not negative"),
        ("crawl.rows_per_second=0", "rows_per_second above 0"),
        ("crawl.bytes_per_row=-1", "must be finite and not negative"),
        ("crawl.survival=-0.5", "must be finite and not negative"),
    ],
)
def test_settings_that_say_nothing_are_refused(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measured.with_settings(some_rates(0), [setting])


def test_settings_go_before_what_was_measured_and_may_stand_alone() -> None:
    found = some_rates(0)
    merged = measured.with_settings(found, ["crawl.survival=0.25", "crawl.rows_per_second=7"])
    assert merged == {**found, "crawl": replace(found["crawl"], survival=0.25, rows_per_second=7.0)}
    with pytest.raises(
        InputError, match=r"no rates of crawl.rows_per_second, crawl.bytes_per_row, match.rows_per_second and 59 more"
    ):
        measured.with_settings({}, ["crawl.survival=0.25"])
    every = [f"{stage}.{name}=1" for stage in BY_STAGE for name in ("rows_per_second", "survival", "bytes_per_row")]
    assert measured.with_settings({}, every)["shard"] == Rate(rows_per_second=1, survival=1, bytes_per_row=1)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b'{"rates": {"crawl": {"rows_per_second": "x"}}}', b'{"rates": {"crawl": 1}}']
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not the JSON of a plan"):
        measured.rates([str(path)])


def test_a_root_of_another_version_is_refused(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", 8_000, Law())
    (tmp_path / "root" / "7_more").mkdir()
    with pytest.raises(InputError, match="has folders that no plan knows: 7_more"):
        measured.read(root)


def test_the_steps_are_chained() -> None:
    known = {"archives", "queries"}
    for step in STEPS:
        assert {read.folder for read in step.reads} <= known, step
        known.add(step.folder)
    assert len(BY_FOLDER) == len(BY_STAGE) == len(STEPS)


def test_the_command_plans_from_a_root_and_again_from_its_own_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_root(tmp_path / "root", 80_000, Law())
    first, second = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    arguments = ["build", *PRICES, "--recipe", "pilot", "--pairs", "1000000", "--json"]
    assert main([*arguments, first, "--measured", root]) == 0
    said = capsys.readouterr().out
    assert "nodes: " in said
    assert "taken for granted:" in said
    assert main([*arguments, second, "--measured", first]) == 0
    plans = [json.loads(Path(path).read_text()) for path in (first, second)]
    for name in ("nodes", "seconds", "cost", "steps"):
        assert plans[0][name] == plans[1][name]
    assert main(["check", "--measured", root, "--against", root]) == 0
    assert "rows_out: predicted over seen" in capsys.readouterr().out


def test_the_command_tells_a_mistake_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *PRICES, "--measured", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert "has no _MANIFEST.json" in line
    assert main(["train", "--node.price-per-hour", "30", "--node.gpus", "8", "--num-gpus", "100"]) == 2
    assert "must be a multiple of the GPUs, found 32,768 and 100" in capsys.readouterr().err
    assert main(["train", "--node.price-per-hour", "30", "--node.gpus", "8", "--recipe", "gpt"]) == 2
    assert "--recipe expected one of mini, mini_vit" in capsys.readouterr().err
