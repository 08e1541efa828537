"""The fate that every link must have, from the truth table and plain Python loops, and the fate that it had.

The small web's truth table says what happens to a row if balancing keeps it. What balancing keeps follows from draws, so it is
computed here again: matching by n-grams in a dictionary, draws by Python integers, the limit by sorting. Nothing of this is
the pipeline's own code.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pipeline.manifest import Dataset

Key = tuple[str, int, str]  # page_url, link_index, attribute
Fate = tuple[str, str | None]  # stage, reason
Row = dict[str, Any]
BITS_64 = (1 << 64) - 1


def words(text: str) -> tuple[str, ...]:
    """The words of a text of Latin script: NFKC, case folded, everything but letters, marks and digits is a boundary."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return tuple(re.findall(r"[^\W_]+", folded))


def matches(texts: Iterable[str], queries: Iterable[str]) -> list[set[int]]:
    """For each text the numbers of the queries whose words stand in it, in a row."""
    known: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        known[words(query)].append(number)
    longest = max(len(query) for query in known)
    found = []
    for text in texts:
        all_words = words(text)
        grams = {all_words[i:j] for i in range(len(all_words)) for j in range(i + 1, min(i + longest, len(all_words)) + 1)}
        found.append({number for gram in grams if gram in known for number in known[gram]})
    return found


def mix(value: int) -> int:
    """splitmix64."""
    value = (value + 0x9E3779B97F4A7C15) & BITS_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & BITS_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & BITS_64
    return value ^ (value >> 31)


def pair_id(image_url: str, text: str) -> str:
    """The name of a pair."""
    return hashlib.blake2b(f"{image_url}\n{text}".encode(), digest_size=16).hexdigest()


def capped(pairs: dict[str, set[int]], limit: int, seed: int) -> set[str]:
    """The pairs that are among the `limit` smallest draws of some query that they match."""
    drawn: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for pair, numbers in pairs.items():
        key = mix(int(pair[:16], 16) ^ mix(seed))
        for number in numbers:
            drawn[number].append((mix(key ^ number), pair))
    return {pair for members in drawn.values() for _, pair in sorted(members)[:limit]}


def key_of(row: Row) -> Key:
    """What names a row of the truth table and of the candidates."""
    return row["page_url"], row["link_index"], row["attribute"]


def expected(truth: list[Row], queries: list[str], max_per_query: int, oversample: float, seed: int) -> dict[Key, Fate]:
    """The fate of every row. `queries` in the order of their ids."""
    fates: dict[Key, Fate] = {key_of(row): (row["stage"], row["reason"]) for row in truth}
    limited = [row for row in truth if row["balance_limited"]]
    ids = {key_of(row): pair_id(row["image_url"], row["text"]) for row in limited}
    numbers = matches((row["text"] for row in limited), queries)
    distinct = {ids[key_of(row)]: found for row, found in zip(limited, numbers, strict=True)}
    kept = capped(distinct, round(max_per_query * oversample), seed)
    for row in limited:
        if ids[key_of(row)] not in kept and fates[key_of(row)] != ("balance", "repeated_pair"):
            fates[key_of(row)] = ("balance", "over_limit")
    survivors = {ids[key]: distinct[ids[key]] for key in ids if fates[key][0] == "kept"}
    trimmed = capped(survivors, max_per_query, seed)
    for key, pair in ids.items():
        if fates[key][0] == "kept" and pair not in trimmed:
            fates[key] = ("shard", "over_limit")
    return fates


def found(root: str) -> dict[Key, Fate]:
    """The fate that every row had, from the folders of a run that keeps every dropped row."""
    fates: dict[Key, Fate] = {}
    for folder, stage in (("1_candidates", "crawl"), ("2_matched", "match"), ("3_balanced", "balance"), ("4_images", "download")):
        for row in dropped(f"{root}/{folder}"):
            assert key_of(row) not in fates, f"dropped twice: {key_of(row)}"
            fates[key_of(row)] = (stage, row["drop"])
    images = Dataset(f"{root}/4_images").read(("pair_id", "page_url", "link_index", "attribute")).to_pylist()
    by_pair = {row["pair_id"]: key_of(row) for row in images}
    for folder, stage in (("5_unique", "dedupe"), ("5_unique/_trimmed", "shard")):
        for row in dropped(f"{root}/{folder}"):
            fates[by_pair.pop(row["pair_id"])] = (stage, row["drop"])
    shards = Dataset(f"{root}/6_shards").read(("pair_id",))["pair_id"].to_pylist()
    assert sorted(shards) == sorted(by_pair), "the shards do not hold exactly what no stage dropped"
    fates.update({key: ("kept", None) for key in by_pair.values()})
    return fates


def dropped(folder: str) -> list[Row]:
    """The dropped rows of a stage, all of them."""
    dataset = Dataset(folder)
    table = dataset.read_dropped()
    rows = table.to_pylist() if table is not None else []
    assert len(rows) == sum(dataset.manifest.drops.values()), f"{folder}: the sample is not all; set run.dropped_sample higher"
    return rows
