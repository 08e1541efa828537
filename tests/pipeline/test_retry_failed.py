"""--retry-failed: what may come out now does, nothing else is asked for, and every byte that was there stays."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import build_wit
from jobs._cli import parse
from pipeline import dedupe, download
from pipeline.config import RunConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.runner import in_process, on_ray, retry, run_steps, write_dataset
from pipeline.stage import Step
from tests.pipeline.loopback import Web, hang, pairs, say, serve
from tests.pipeline.test_download import picture

SETTINGS = RunConfig(num_workers=2, verify="hash", dropped_sample=1000)
ROWS = 24  # of one part of the source, which makes two parts of pictures

# path, the server the first time, the reason, the server the second time, what the row is in the end (None: a picture)
FATES = [
    ("/good.jpg", "good", None, "gone", None),
    ("/better.jpg", "good", None, "good", None),
    ("/was-500.jpg", "500", "http_5xx", "good", None),
    ("/still-500.jpg", "500", "http_5xx", "500", "http_5xx"),
    ("/now-404.jpg", "500", "http_5xx", "gone", "http_4xx"),
    ("/was-slow.jpg", "hang", "timeout", "good", None),
    ("/was-busy.jpg", "429", "http_4xx", "good", None),
    ("/now-a-page.jpg", "429", "http_4xx", "page", "not_an_image"),
    ("/gone.jpg", "gone", "http_4xx", "good", "http_4xx"),  # it is there now, but a 404 is an answer
    ("/page.jpg", "page", "not_an_image", "good", "not_an_image"),
    ("/no.jpg", "opt_out", "opt_out", "good", "opt_out"),
]
FATES += [(f"/{number}.jpg", "good", None, "good", None) for number in range(ROWS - len(FATES))]


def answers(host: int, place: int) -> dict[str, Any]:
    """What a server can say."""
    good = picture(seed=100 * host + place)
    return {
        "good": say(good), "gone": say(status=404), "500": say(status=500), "hang": hang, "page": say(b"<html>"),
        "429": say(status=429, Retry_After="0"), "opt_out": say(good, X_Robots_Tag="noai"),
    }  # fmt: skip


def routes(time: int) -> dict[str, Any]:
    """Everything that the two hosts say, before (0) and after (1). Of the second host's other half nothing ever failed."""
    return {
        f"host{host}.test{path}": answers(host, place)[first if time == 0 else second]
        for host in range(2)
        for place, (path, first, _, second, _) in enumerate(FATES)
    }


class Small:
    """A root, and the steps over it."""

    def __init__(self, site: Web, root: Path):
        self.root, self.events = str(root), Events(str(root), "test")
        config = site.config(pairs_per_part=12, max_retries=0, timeout_seconds=0.5, max_host_failures=1000)
        self.download = Step(download.STAGE, config, ["3_balanced"], "4_images")
        later = site.config(), dedupe.DedupeConfig(max_distance=0, num_buckets=2)
        self.rest = [
            Step(dedupe.BANDS, later[1], ["4_images"], "5_unique/_bands"),
            Step(dedupe.EDGES, later[1], ["5_unique/_bands"], "5_unique/_edges"),
            Step(dedupe.STAGE, later[1], ["4_images"], "5_unique", {"edges": "5_unique/_edges"}),
        ]

    def run(self, execute: Any = in_process) -> dict[str, Manifest]:
        return run_steps([self.download, *self.rest], self.root, settings=SETTINGS, events=self.events, execute=execute)

    def retry(self, execute: Any = in_process) -> Manifest:
        return retry(self.download, self.root, settings=SETTINGS, events=self.events, execute=execute)

    def files(self, folder: str = "4_images") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path(self.root, folder).glob("*") if path.suffix in (".tar", ".parquet")}

    def fates(self) -> dict[str, str | None]:
        images = Dataset(f"{self.root}/4_images")
        dropped = images.read_dropped()
        found: dict[str, str | None] = {row["image_url"]: row["drop"] for row in dropped.to_pylist()} if dropped else {}
        kept = images.read(("image_url", "image", "sha256")).to_pylist()
        assert all(row["image"][:3] == b"\xff\xd8\xff" for row in kept)
        assert not found.keys() & {row["image_url"] for row in kept}
        return found | {row["image_url"]: None for row in kept}


def expected(at: int) -> dict[str, str | None]:
    return {f"http://host{host}.test{fate[0]}": fate[at] for host in range(2) for fate in FATES}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    hosts = {f"host{host}.test": "127.0.0.1" for host in range(2)}
    with serve(routes(0), tmp_path_factory.mktemp("web"), hosts) as site:
        yield site


@pytest.fixture(scope="module")
def first(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root as the first run leaves it; from then on the web is the second one."""
    root = tmp_path_factory.mktemp("first") / "root"
    tables = {f"bucket-{host}": pairs([f"http://host{host}.test{fate[0]}" for fate in FATES]) for host in range(2)}
    write_dataset(f"{root}/3_balanced", stage="balance", version=1, config=None, parts=tables)
    small = Small(web, root)
    small.run()
    assert small.fates() == expected(2)
    web.routes = routes(1)
    web.asked.clear()
    return root


@pytest.fixture
def small(web: Web, first: Path, tmp_path: Path) -> Small:
    """A copy of the first root, to be retried."""
    shutil.copytree(first, tmp_path / "root")
    web.asked.clear()
    return Small(web, tmp_path / "root")


@pytest.fixture(scope="module")
def undisturbed(web: Web, first: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes after a retry that nothing disturbs."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    shutil.copytree(first, root)
    again = Small(web, root)
    again.retry()
    return {name: manifest.hash for name, manifest in again.run().items()}


def test_only_what_may_come_out_is_asked_for_and_every_byte_stays(small: Small, web: Web) -> None:
    before, drops = small.files(), Dataset(f"{small.root}/4_images").manifest.drops
    manifest = small.retry()
    assert small.fates() == expected(4)
    asked = {path for _, path in web.asked} - {"/robots.txt"}
    assert asked == {path for path, *_ in FATES if path.startswith(("/was", "/now", "/still"))}
    after = small.files()
    assert {name: after[name] for name in before} == before
    assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values()) == 2 * ROWS
    assert sum(drops.values()) - sum(manifest.drops.values()) == 2 * 3
    for part in manifest.parts:
        failed = Dataset(f"{small.root}/4_images").read_failed(part.name)
        assert (failed.num_rows if failed else 0) == sum(part.drops.values())


def test_a_plain_run_afterwards_believes_what_the_retry_made(small: Small, web: Web, undisturbed: dict[str, str]) -> None:
    hash_after = small.retry().hash
    web.asked.clear()
    made = small.run()
    assert not web.asked
    assert made["4_images"].hash == hash_after
    assert {name: manifest.hash for name, manifest in made.items()} == undisturbed
    assert {row["pair_id"] for row in Dataset(f"{small.root}/5_unique").read().to_pylist()} == {
        row["pair_id"] for row in Dataset(f"{small.root}/4_images").read(("pair_id",)).to_pylist()
    }


class Stopped(Exception):
    """The run ends here."""


def stop_after(number: int) -> Callable[..., Iterator[Any]]:
    def execute(job: Any, pending: Any, settings: Any) -> Iterator[Any]:
        for made, part in enumerate(in_process(job, pending, settings)):
            if made == number:
                raise Stopped
            yield part

    return execute


@pytest.mark.parametrize("number", range(2))
def test_interrupted_and_resumed_is_uninterrupted(small: Small, web: Web, undisturbed: dict[str, str], number: int) -> None:
    before = small.fates()
    with pytest.raises(Stopped):
        small.retry(stop_after(number))
    Path(small.root, "4_images", "bucket-1-0000.retry-1.tar").write_bytes(b"half a f")  # as a killed worker may leave it
    assert small.fates() == before, "until it is finished the dataset is the old one"
    assert small.run()["4_images"].hash == Dataset(f"{small.root}/4_images").manifest.hash
    web.asked.clear()
    small.retry()
    asked = [web.times_asked("/was-500.jpg", f"host{host}.test") for host in range(2)]
    assert asked == [0, 1], "what is done and whole is not done again"
    assert {name: manifest.hash for name, manifest in small.run().items()} == undisturbed


def test_only_what_new_pictures_change_is_made_anew(small: Small) -> None:
    def records(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path(small.root, folder, "_parts").glob("*.json")}

    bands, images = records("5_unique/_bands"), records("4_images")
    small.retry()
    small.run()
    changed = {name for name, data in records("4_images").items() if data != images[name]}
    assert changed == {"bucket-0-0000.json", "bucket-1-0000.json"}
    assert {name for name, data in records("5_unique/_bands").items() if data != bands[name]} == changed


def test_where_nothing_comes_out_nothing_changes(small: Small, web: Web, undisturbed: dict[str, str]) -> None:
    small.retry()
    hashes = {name: manifest.hash for name, manifest in small.run().items()}
    web.asked.clear()
    small.retry()
    assert {path for _, path in web.asked} == {"/robots.txt", "/still-500.jpg"}
    made: list[str] = []

    def execute(job: Any, pending: Any, settings: Any) -> Iterator[Any]:
        made.extend(task.part for task, _ in pending)
        return in_process(job, pending, settings)

    assert {name: manifest.hash for name, manifest in small.run(execute).items()} == hashes
    assert not made


def test_ray_makes_what_one_process_makes(small: Small, undisturbed: dict[str, str], ray_address: str) -> None:
    small.retry(on_ray)
    assert {name: manifest.hash for name, manifest in small.run().items()} == undisturbed


def test_what_is_not_finished_or_not_up_to_date_is_refused(small: Small) -> None:
    extra = pairs(["http://host0.test/new.jpg"])
    tables = {part: Dataset(f"{small.root}/3_balanced").read_part(part) for part in ("bucket-0", "bucket-1")}
    write_dataset(f"{small.root}/3_balanced", stage="balance", version=1, config=None, parts={**tables, "more": extra})
    with pytest.raises(InputError, match="not up to date with its sources: run the same command without --retry-failed"):
        small.retry()
    Path(small.root, "4_images", "_MANIFEST.json").unlink()
    with pytest.raises(InputError, match=r"4_images has no _MANIFEST\.json"):
        small.retry()


@pytest.mark.parametrize(("words", "value"), [([], False), (["--retry-failed"], True), (["--retry-failed", "False"], False)])
def test_the_switch_needs_no_value(words: list[str], value: bool) -> None:
    config = parse(build_wit.RECIPES, build_wit.__doc__, ["pilot", *words, "--root", "out/x"])
    assert (config.retry_failed, config.root) == (value, "out/x")
