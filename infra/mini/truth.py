"""Truth: the exact fate of every row that the crawl must emit.

in      pages with their places in the archives, sha256 of every body
out     truth.parquet
law     the fate of a row that balance may cut (`balance_limited`) is what happens if balance keeps it: the caller works
        the cut out itself; no other row's fate depends on the cut
"""

import pyarrow as pa

from infra.mini import texts
from infra.mini.pages import Page
from infra.mini.pictures import Drawing
from infra.mini.plan import Plan

SCHEMA = pa.schema(
    [
        ("page_url", pa.string()),
        ("link_index", pa.int32()),
        ("attribute", pa.string()),
        ("image_url", pa.string()),
        ("text", pa.string()),
        ("kind", pa.string()),  # the generator's name of the case
        ("stage", pa.string()),  # the stage that drops it: crawl, match, balance, download, dedupe; or kept
        ("reason", pa.string()),  # null where it is kept
        ("concept", pa.string()),
        ("head", pa.bool_()),  # a concept with more pairs than balance lets through
        ("balance_limited", pa.bool_()),  # reaches balance as a distinct pair, so its cap has a say
        ("archive", pa.string()),  # file name
        ("record_offset", pa.int64()),
        ("picture", pa.string()),  # name of what is drawn, the same for copies; "" where nothing arrives
        ("family", pa.string()),  # whose glyph the picture shows
        ("glyph", pa.string()),
        ("sha256", pa.string()),  # of the bytes that arrive
    ]
)
BEFORE_BALANCE = ("crawl", "match")


def rows_of(pages: list[Page], places: list[tuple[str, int]], plan: Plan, sha256: dict[str, str]) -> list[dict[str, object]]:
    """One row for each text of each link, with the fate that it has by itself."""
    drawings: dict[str, Drawing] = {what.name: what for what in plan.drawings}
    originals = {name: original for name, original, _ in plan.copies}
    rows = []
    for page, (archive, offset) in zip(pages, places, strict=True):
        for index, link in enumerate(page.links):
            name = originals.get(link.picture, link.picture)
            what = drawings.get(name)
            for attribute, text in link.texts.items():
                rows.append(
                    {
                        "page_url": page.url, "link_index": index, "attribute": attribute, "image_url": link.url,
                        "text": text, "kind": link.kind, "stage": link.stage, "reason": link.reason,
                        "concept": link.concept, "head": link.head, "archive": archive, "record_offset": offset,
                        "picture": name, "family": what.glyph.family if what else "", "glyph": what.glyph.name if what else "",
                        "sha256": sha256.get(link.picture, ""),
                    }
                )  # fmt: skip
    return rows


def settle(rows: list[dict]) -> None:
    """Work out what follows from other rows: repeated pairs first, then pictures that are shown more than once."""
    rows.sort(key=lambda row: (row["archive"], row["record_offset"], row["link_index"], row["attribute"]))
    seen = set()
    for row in rows:
        row["balance_limited"] = row["stage"] not in BEFORE_BALANCE
        pair = (row["image_url"], row["text"])
        if row["balance_limited"] and pair in seen:
            row.update(stage="balance", reason="repeated_pair", balance_limited=False)
        elif row["balance_limited"]:
            seen.add(pair)
    groups: dict[str, list[dict]] = {}
    for row in rows:
        if row["stage"] == "kept" and row["picture"]:
            groups.setdefault(row["picture"], []).append(row)
    for group in groups.values():
        ranks = [texts.rank(row["text"]) for row in group]
        best = max(ranks)
        if ranks.count(best) > 1:
            raise AssertionError(f"infra.mini: two texts of {group[0]['picture']} are equally specific: {group}")
        survivor = group[ranks.index(best)]
        for row in group:
            if row is not survivor:
                same = row["sha256"] == survivor["sha256"]
                row.update(stage="dedupe", reason="duplicate" if same else "near_duplicate")


def table(rows: list[dict]) -> pa.Table:
    """The rows as Arrow."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)
