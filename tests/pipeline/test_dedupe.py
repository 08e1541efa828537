"""Which pairs stay: compared with groups that plain Python finds by looking at every two pictures."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import dedupe, hashing, schema
from pipeline.config import DedupeConfig, RunConfig
from pipeline.events import Events
from pipeline.manifest import Dataset
from pipeline.runner import in_process, on_ray, run
from pipeline.storage import join
from tests.pipeline import images_dataset

CONFIG = DedupeConfig(max_distance=3, max_color_distance=20, max_urls_per_image=4, num_buckets=5)
WORDS = ["red", "Bicycle", "bicycle", "icon", "on", "a", "white", "BACKGROUND", "house", "tree"]


def images(seed: int, num_pairs: int) -> pa.Table:
    """Pairs that show a few pictures: as they are, re-encoded (near or just not near), recolored, under many URLs."""
    chance = np.random.default_rng(seed)
    shapes = chance.integers(0, 2**64, 12, dtype=np.uint64).tolist()
    tints = chance.integers(0, 256, (3, 48))
    rows = []
    for number in range(num_pairs):
        phash, tint = shapes[int(chance.integers(12) ** 2 // 12)], int(chance.integers(3))
        for _ in range(int(chance.choice([0, 0, 0, 1, 2, 5]))):
            phash ^= 1 << int(chance.integers(64))
        colors = (tints[tint] + int(chance.choice([0, 0, 0, 11, 25]))).clip(0, 255).astype(np.uint8).tobytes()
        copy = int(chance.choice([0, 0, 0, 1]))  # other bytes of the same picture
        url = f"http://h{number % 7}.test/{number if chance.random() < 0.7 else number % 3}.jpg"
        if number % 20 == 0:  # a placeholder
            phash, colors, copy, url = shapes[0], tints[0].astype(np.uint8).tobytes(), 0, f"http://none.test/{number}"
        text = " ".join(chance.choice(WORDS, int(chance.integers(1, 9))))
        rows.append(
            {
                "pair_id": hashing.pair_id(url, f"{text} {number}"), "image_url": url, "text": text, "query_ids": [number % 5],
                "sha256": hashing.sha256(f"{phash} {copy}".encode() + colors), "phash": phash, "colors": colors,
            }
        )  # fmt: skip
    fields = [*(schema.IMAGES.field(name) for name in dedupe.SLIM), schema.IMAGES.field("query_ids")]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def rank(row: dict) -> tuple:
    """What decides who of a group stays: the smallest of these."""
    words = set(re.findall(r"\w+", row["text"].casefold()))
    return -min(32, len(words)), row["pair_id"]


def near(one: dict, other: dict, config: DedupeConfig) -> bool:
    """The relation, from its definition."""
    differ = max(abs(a - b) for a, b in zip(one["colors"], other["colors"], strict=True))
    return (one["phash"] ^ other["phash"]).bit_count() <= config.max_distance and differ <= config.max_color_distance


def expected(rows: list[dict], config: DedupeConfig) -> dict[str, tuple[str | None, int]]:
    """pair_id -> reason and number of pairs in its group, by comparing every two pairs."""
    urls: dict[str, set[str]] = {}
    for row in rows:
        urls.setdefault(row["sha256"], set()).add(row["image_url"])
    fate: dict[str, tuple[str | None, int]] = {}
    left = {}
    for row in rows:
        if len(urls[row["sha256"]]) > config.max_urls_per_image:
            fate[row["pair_id"]] = ("placeholder", 1)
        else:
            left[row["pair_id"]] = row
    while left:
        _, first = left.popitem()
        group, reached = [first], [first]
        while reached:
            point = reached.pop()
            found = [row for row in left.values() if near(point, row, config)]
            for row in found:
                del left[row["pair_id"]]
            group += found
            reached += found
        survivor = min(group, key=rank)
        for row in group:
            same = "duplicate" if row["sha256"] == survivor["sha256"] else "near_duplicate"
            fate[row["pair_id"]] = (None if row is survivor else same, len(group))
    return fate


def whole(parts: list[pa.Table], config: DedupeConfig) -> list[pa.Table]:
    """The stages' functions, one after another, as the runner would call them."""
    slim = pa.concat_tables([dedupe.bands(part.select(dedupe.SLIM), config) for part in parts])
    bucket = dedupe.band_bucket(slim, config.num_buckets)
    found = [dedupe.edges(slim.filter(pa.array(bucket == number)), config) for number in range(config.num_buckets)]
    groups = dedupe.Groups.of(pa.concat_tables(found))
    return [dedupe.dedupe(part, groups) for part in parts]


def fates(labelled: list[pa.Table]) -> dict[str, tuple[str | None, int]]:
    """pair_id -> reason and group_pairs."""
    rows = pa.concat_tables(labelled).to_pylist()
    return {row["pair_id"]: (row["drop"], row["group_pairs"]) for row in rows}


@pytest.mark.parametrize("seed", range(12))
def test_every_pair_has_the_fate_that_comparing_all_pictures_gives(seed: int):
    table = images(seed, 160)
    want = expected(table.to_pylist(), CONFIG)
    assert {reason for reason, _ in want.values()} >= {None, "placeholder", "duplicate", "near_duplicate"}
    assert fates(whole([table], CONFIG)) == want


@pytest.mark.parametrize("max_distance", [0, 1, 6, 15])
def test_every_distance_gives_the_fates_of_brute_force(max_distance: int):
    config = DedupeConfig(max_distance=max_distance, max_color_distance=12, max_urls_per_image=3, num_buckets=3)
    table = images(99, 120)
    assert fates(whole([table], config)) == expected(table.to_pylist(), config)


@pytest.mark.parametrize("seed", range(4))
def test_fates_do_not_depend_on_the_order_or_cut_of_the_rows(seed: int):
    table = images(seed, 150)
    mixed = table.take(pa.array(np.random.default_rng(seed).permutation(150)))
    parts = [mixed.slice(start, 37) for start in range(0, 150, 37)]
    labelled = whole(parts, CONFIG)
    assert fates(labelled) == fates(whole([table], CONFIG))
    for part, rows in zip(parts, labelled, strict=True):
        assert rows["pair_id"].to_pylist() == part["pair_id"].to_pylist()
        assert rows["row"].to_pylist() == list(range(part.num_rows))
        assert rows["query_ids"].to_pylist() == part["query_ids"].to_pylist()


@pytest.mark.parametrize("seed", range(6))
def test_dedupe_of_what_stays_drops_nothing(seed: int):
    table = images(seed, 200)
    keep = whole([table], CONFIG)[0]["drop"].is_null()
    again = whole([table.filter(keep)], CONFIG)[0]
    assert again["drop"].null_count == again.num_rows
    assert set(again["group_pairs"].to_pylist()) == {1}


def test_the_survivor_is_named_and_stays():
    (labelled,) = whole([images(3, 200)], CONFIG)
    rows = {row["pair_id"]: row for row in labelled.to_pylist()}
    for row in rows.values():
        if row["drop"] in ("duplicate", "near_duplicate"):
            assert rows[row["survivor_id"]]["drop"] is None
            assert rows[row["survivor_id"]]["group_pairs"] == row["group_pairs"]


def row_of(number: int, *, url: str, text: str, phash: int = 0, color: int = 0, sha256: str = "s") -> dict:
    """A row by hand."""
    return {
        "pair_id": f"{number:032x}", "image_url": url, "text": text, "query_ids": [0], "sha256": sha256, "phash": phash,
        "colors": bytes([color]) * 48,
    }  # fmt: skip


def one_part(rows: list[dict]) -> pa.Table:
    """The rows as an images part."""
    return pa.Table.from_pylist(rows, schema=images(0, 1).schema)


def test_many_texts_of_one_url_are_no_placeholder():
    rows = [row_of(n, url="http://a.test/1.jpg", text=f"text {n}") for n in range(30)]
    found = fates(whole([one_part(rows)], CONFIG))
    assert sorted(str(reason) for reason, _ in found.values()) == ["None", *["duplicate"] * 29]


def test_a_placeholder_joins_no_groups():
    """Two pictures that are near only through the placeholder between them are different pictures."""
    between = [row_of(n, url=f"http://p.test/{n}", text="none", phash=0b111, sha256="p") for n in range(5)]
    ends = [row_of(10, url="http://a.test/", text="a", phash=0), row_of(11, url="http://b.test/", text="b", phash=0b111111)]
    found = fates(whole([one_part(between + ends)], CONFIG))
    assert found.pop(f"{10:032x}") == (None, 1)
    assert found.pop(f"{11:032x}") == (None, 1)
    assert set(found.values()) == {("placeholder", 1)}


def test_the_same_drawing_in_another_color_is_another_picture():
    rows = [row_of(n, url=f"http://a.test/{n}", text="t", color=n * 21, sha256=str(n)) for n in range(3)]
    assert set(fates(whole([one_part(rows)], CONFIG)).values()) == {(None, 1)}
    rows[2]["colors"] = bytes([20]) * 48  # between the first two, near to both
    assert sorted(str(reason) for reason, _ in fates(whole([one_part(rows)], CONFIG)).values()) == [
        "None",
        *["near_duplicate"] * 2,
    ]


def test_text_rank_counts_distinct_words_whatever_their_case():
    assert dedupe.text_rank("A red-hot RED bicycle, a Bicycle!") == 4
    assert dedupe.text_rank("") == 0
    assert dedupe.text_rank(" ".join(f"w{n}" for n in range(100))) == 32


def test_a_hundred_thousand_copies_make_as_many_edges():
    rows = pa.table(
        {
            "phash": pa.array(np.zeros(100_000, np.uint64)), "colors": pa.array([bytes(48)] * 100_000, pa.binary(48)),
            "pair_id": [f"{n:032x}" for n in range(100_000)], "sha256": [str(n) for n in range(100_000)],
            "image_url": ["http://a.test/"] * 100_000, "text": ["t"] * 100_000,
        }
    )  # fmt: skip
    found = dedupe.edges(dedupe.bands(rows, CONFIG), CONFIG)
    assert found.num_rows == 100_000
    assert set(found["other_id"].to_pylist()) == {"0" * 32}


@pytest.mark.parametrize("num_parts", [1, 3, 16])
def test_the_runner_gives_what_the_functions_give(num_parts: int, tmp_path: Path, ray_address: str):
    table, root = images(5, 160), str(tmp_path)
    images_dataset.write(join(root, "4_images"), images_dataset.cut(table, num_parts))
    steps = [
        (dedupe.BANDS, "4_images", "5_unique/_bands", {}),
        (dedupe.EDGES, "5_unique/_bands", "5_unique/_edges", {}),
        (dedupe.STAGE, "4_images", "5_unique", {"edges": join(root, "5_unique/_edges")}),
    ]
    for stage, source, target, sides in steps:
        run(
            stage, CONFIG, sources=[join(root, source)], target=join(root, target), sides=sides, events=Events(root, "test"),
            settings=RunConfig(num_workers=2), execute=on_ray if num_parts == 3 else in_process,
        )  # fmt: skip
    result = Dataset(join(root, "5_unique"))
    kept, dropped = result.read(), result.read_dropped()
    want = expected(table.to_pylist(), CONFIG)
    assert dropped is not None
    assert fates([dropped]) == {pair: fate for pair, fate in want.items() if fate[0]}
    assert kept["pair_id"].to_pylist() == [pair for pair in table["pair_id"].to_pylist() if want[pair][0] is None]
    assert kept.column_names == schema.UNIQUE.names
