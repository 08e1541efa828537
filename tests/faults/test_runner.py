"""The runner's contract: the same manifest whatever dies, nothing twice, nothing lost, nothing believed that is torn."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import InputError
from pipeline.manifest import Dataset, TornPart
from pipeline.runner import in_process
from pipeline.storage import join
from tests.conftest import REPOSITORY
from tests.faults.stages import KEEP, SETTINGS, STEPS, NumbersConfig, build, numbers

PARTS = numbers(5)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Manifest hashes of a run in one process that nothing disturbs."""
    root = str(tmp_path_factory.mktemp("undisturbed"))
    return [manifest.hash for manifest in build(root, NumbersConfig(), PARTS, execute=in_process)]


def hashes(root: str, config: NumbersConfig = NumbersConfig(), **options) -> list[str]:  # noqa: B008
    return [manifest.hash for manifest in build(root, config, PARTS, **options)]


def kept(root: str) -> list[str]:
    return sorted(Dataset(join(root, "2")).read()["pair_id"].to_pylist())


def test_rows_are_what_one_python_loop_says(root: str) -> None:
    build(root, NumbersConfig(), PARTS, execute=in_process)
    rows = [row for table in PARTS.values() for row in table.to_pylist()]
    even = [row for row in rows if row["number"] % 2 == 0]
    mean = sum(row["number"] for row in even) / len(even)
    assert kept(root) == sorted(row["pair_id"] for row in even if row["number"] > mean)
    manifest = Dataset(join(root, "1")).manifest
    assert (manifest.rows_in, manifest.rows_out, manifest.drops) == (len(rows), len(even), {"odd": len(rows) - len(even)})


def test_ray_makes_what_one_process_makes(root: str, undisturbed: list[str], ray_address: str) -> None:
    assert hashes(root) == undisturbed


@pytest.mark.parametrize("num_parts", [1, 3, 7])
def test_rows_do_not_depend_on_how_they_are_cut_into_parts(root: str, num_parts: int) -> None:
    rows = pa.concat_tables(PARTS.values())
    size = -(-rows.num_rows // num_parts)
    parts = {f"cut-{i}": rows.slice(i * size, size) for i in range(num_parts)}
    build(root, NumbersConfig(), parts, execute=in_process)
    other = f"{root}-whole"
    build(other, NumbersConfig(), PARTS, execute=in_process)
    assert kept(root) == kept(other)


def test_a_worker_killed_in_each_stage_changes_nothing(
    root: str, tmp_path: Path, undisturbed: list[str], ray_address: str
) -> None:
    marker = tmp_path / "marker"
    marker.mkdir()
    settings = RunConfig(num_workers=1, verify="hash", dropped_sample=5)
    assert hashes(root, NumbersConfig(marker=str(marker)), settings=settings) == undisturbed
    assert sorted(path.name for path in marker.iterdir()) == ["above", "keep", "total"]


def test_more_deaths_than_a_worker_has_lives_change_nothing_while_parts_are_made(
    root: str, tmp_path: Path, undisturbed: list[str], ray_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RunConfig(num_workers=1, verify="hash", dropped_sample=5, max_restarts=1)
    assert hashes(root, NumbersConfig(marker=str(tmp_path), each=True), settings=settings) == undisturbed
    assert len(list(tmp_path.glob("keep-*"))) == len(PARTS)
    assert "keep             a worker or its node is gone for good; going on with" in capsys.readouterr().out


DRIVER = textwrap.dedent(
    """
    import os, signal, sys
    from pipeline.runner import in_process
    from tests.faults.stages import STEPS, NumbersConfig, build, numbers

    root, stages, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

    def execute(job, pending, settings):
        for number, part in enumerate(in_process(job, pending, settings)):
            if job.stage is STEPS[stages][0] and number == parts:
                os.kill(os.getpid(), signal.SIGKILL)
            yield part

    build(root, NumbersConfig(), numbers(5), execute=execute)
    """
)


@pytest.mark.parametrize(("stages", "parts"), [(0, 0), (0, 3), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_driver_killed_anywhere_changes_nothing(root: str, undisturbed: list[str], stages: int, parts: int) -> None:
    run = subprocess.run([sys.executable, "-c", DRIVER, root, str(stages), str(parts)], cwd=REPOSITORY, check=False)
    assert run.returncode == -signal.SIGKILL
    assert hashes(root, execute=in_process) == undisturbed


def test_only_what_is_missing_is_made_again(root: str, undisturbed: list[str]) -> None:
    hashes(root, execute=in_process)
    storage.remove(join(root, "1", "_parts", "part-3.json"))
    storage.remove(join(root, "1", "_MANIFEST.json"))
    made = []

    def execute(job, pending, settings):
        made.extend((job.stage.name, task.part) for task, _ in pending)
        return in_process(job, pending, settings)

    assert hashes(root, execute=execute) == undisturbed
    assert made == [("keep", "part-3")]


@pytest.mark.parametrize("stage", ["1", "2/_sums", "2"])
@pytest.mark.parametrize("tear", ["truncate", "flip", "remove"])
def test_a_torn_part_is_noticed_and_made_again(root: str, undisturbed: list[str], stage: str, tear: str) -> None:
    hashes(root, execute=in_process)
    file = next(file for part in Dataset(join(root, stage)).manifest.parts for file in part.files)
    path = join(root, stage, file.name)
    data = storage.read(path)
    storage.remove(path)
    if tear == "truncate":
        storage.write(path, data[: len(data) // 2])
    elif tear == "flip":
        middle = len(data) // 2
        storage.write(path, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert hashes(root, execute=in_process) == undisturbed
    assert storage.read(path) == data


def test_a_part_torn_while_the_next_stage_reads_it_is_named(root: str) -> None:
    build(root, NumbersConfig(), PARTS, execute=in_process, steps=STEPS[:1])
    path = join(root, "1", "part-0.parquet")
    data = storage.read(path)
    dataset = Dataset(join(root, "1"))
    flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
    storage.write(path, flipped)
    with pytest.raises(TornPart, match=r"part-0\.parquet: expected .* rebuilds what is torn"):
        dataset.read_part("part-0")


def test_other_settings_are_refused_and_named(root: str) -> None:
    hashes(root, execute=in_process)
    with pytest.raises(InputError, match=r"keep_modulo: made with 2, this run asks for 3.*new --root"):
        hashes(root, NumbersConfig(keep_modulo=3), execute=in_process)


def test_a_source_that_is_no_longer_named_is_refused(root: str) -> None:
    hashes(root, execute=in_process)
    fewer = {name: table for name, table in PARTS.items() if name != "part-2"}
    with pytest.raises(InputError, match=r"1 inputs that this run does not name \(the first: part-2\)"):
        build(root, NumbersConfig(), fewer, execute=in_process)


def test_sources_that_come_later_are_added(root: str) -> None:
    first = {name: PARTS[name] for name in ("part-0", "part-1")}
    build(root, NumbersConfig(), first, execute=in_process)
    made = []

    def execute(job, pending, settings):
        made.extend((job.stage.name, task.part) for task, _ in pending)
        return in_process(job, pending, settings)

    build(root, NumbersConfig(), PARTS, execute=execute)
    assert [part for stage, part in made if stage == "keep"] == ["part-2", "part-3", "part-4"]
    whole = f"{root}-whole"
    build(whole, NumbersConfig(), PARTS, execute=in_process)
    assert kept(root) == kept(whole)


def test_a_users_mistake_is_one_line_and_the_rest_is_kept(root: str, ray_address: str) -> None:
    refuse = PARTS["part-4"]["number"][7].as_py()
    settings = RunConfig(num_workers=1, verify="hash")
    with pytest.raises(InputError, match=rf"expected no {refuse}, found one; take it out \(4 of 5 parts"):
        build(root, NumbersConfig(refuse=refuse), PARTS, settings=settings)
    assert all(storage.size(join(root, "1", "_parts", f"part-{i}.json")) for i in range(4))
    assert storage.size(join(root, "1", "_MANIFEST.json")) is None


def test_a_process_that_is_used_again_does_not_remember_other_inputs(root: str, ray_address: str) -> None:
    """The second run adds parts: the mean that ABOVE compares with is another one."""
    build(root, NumbersConfig(), {"part-0": PARTS["part-0"]})
    again = build(root, NumbersConfig(), PARTS)
    assert again[-1].hash == build(root + "-once", NumbersConfig(), PARTS, execute=in_process)[-1].hash


@pytest.mark.parametrize("light", [False, True])
def test_a_part_that_kills_its_worker_each_time_ends_the_run_with_a_clear_line(root: str, ray_address: str, light: bool) -> None:
    poison = PARTS["part-1"]["number"][0].as_py()
    with pytest.raises(InputError, match=r"keep: a worker died 3 times on the same part"):
        build(root, NumbersConfig(poison=poison), PARTS, steps=[(replace(KEEP, light=light), "0", "1", {})])
    hashes_after = hashes(root, execute=in_process)
    assert len(hashes_after) == 4


def test_the_sample_of_dropped_rows_is_bounded_and_chosen_by_hash(root: str) -> None:
    hashes(root, execute=in_process)
    dropped = Dataset(join(root, "1")).read_dropped()
    assert dropped is not None
    for table in PARTS.values():
        odd = sorted(row["pair_id"] for row in table.to_pylist() if row["number"] % 2)
        found = sorted(set(odd) & set(dropped["pair_id"].to_pylist()))
        assert found == odd[: SETTINGS.dropped_sample]


def test_a_full_disk_names_the_folder_and_keeps_what_is_committed(tmp_path: Path, undisturbed: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(small)], check=True)
    try:
        parts = numbers(60, rows_per_part=400)
        with pytest.raises(InputError, match=rf"cannot write {small}.*the disk is full: free some room"):
            build(str(small), NumbersConfig(), parts, execute=in_process)
        records = list(small.glob("**/_parts/*.json"))
        assert records
        assert not list(small.glob("**/*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
        other = str(tmp_path / "other")
        again = build(str(small), NumbersConfig(), parts, execute=in_process)
        assert [m.hash for m in again] == [m.hash for m in build(other, NumbersConfig(), parts, execute=in_process)]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.fixture
def bucket_root(root: str) -> str:
    if not root.startswith("s3://"):
        pytest.skip("needs the object store")
    return root


@pytest.mark.object_store
def test_a_missing_bucket_is_named(bucket_root: str) -> None:
    with pytest.raises(InputError, match=r"storage: cannot write s3://no-such-bucket-here/x: there is no such bucket"):
        storage.write("s3://no-such-bucket-here/x", b"data")


def forget_keys() -> None:
    """Make the next call to the store read its keys from the environment again."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    storage._filesystem.cache_clear()


@pytest.mark.object_store
def test_a_store_that_refuses_in_the_middle_keeps_what_is_committed(
    bucket_root: str, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(job, pending, settings):
        for number, part in enumerate(in_process(job, pending, settings)):
            yield part
            if number == 1:
                patch.setenv("AWS_SECRET_ACCESS_KEY", "no-longer-valid")
                forget_keys()

    with monkeypatch.context() as patch:
        forget_keys()
        with pytest.raises(
            InputError, match=r"cannot (read|write) s3://.*; check the keys and the bucket's policy \(2 of 5 parts"
        ):
            build(bucket_root, NumbersConfig(), PARTS, execute=execute)
    forget_keys()
    made = []

    def count(job, pending, settings):
        made.extend(task.part for task, _ in pending if job.stage is KEEP)
        return in_process(job, pending, settings)

    assert hashes(bucket_root, execute=count) == undisturbed
    assert made == ["part-2", "part-3", "part-4"]
