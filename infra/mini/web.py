"""The small web: archives to crawl, a site to download from, and the truth about every link.

    python -m infra.mini.web --out out/web [--links 20000] [--seed 0]

out     archives/*.warc.gz and *.warc.wat.gz; site/ (see site.py); hosts; truth.parquet; never.txt (URLs that must not be
        asked for); concepts.txt; corpus.txt; test/ (see testset.py); _DONE.json, written last
law     the same bytes for the same settings; a finished folder with the same settings is left as it is
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable

import pyarrow.parquet as pq

from infra.mini import (
    archives,
    cases_fetch,
    cases_image,
    cases_text,
    distinct,
    glyphs,
    pages,
    pictures,
    site,
    testset,
    texts,
    truth,
)
from infra.mini.plan import Plan

VERSION = 5  # raise it when the bytes change
CORPUS_LINES = 2500
DONE = "_DONE.json"
CASES = (
    cases_text.dropped_by_crawl, cases_text.no_query, cases_text.kept_by_markup, cases_text.kept_by_encoding,
    cases_fetch.robots, cases_fetch.network, cases_fetch.statuses, cases_fetch.redirects, cases_fetch.opt_outs,
    cases_image.not_images, cases_image.bad_pictures, cases_image.unusual_formats, cases_image.repeats,
    cases_image.plain,
)  # fmt: skip


def make_plan(num_links: int, seed: int) -> Plan:
    """All cases; `plain`, the last, fills up what the others have left."""
    plan = Plan(seed, num_links)
    for case in CASES:
        case(plan)
    return plan


def write_lines(path: str, lines: list[str]) -> None:
    """A text file, one line each."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def build(folder: str, num_links: int = 20_000, seed: int = 0, num_workers: int = 2, say: Callable[[str], None] = print) -> None:
    """Make the whole web in `folder`, or nothing where it is there already."""
    settings = {"version": VERSION, "links": num_links, "seed": seed}
    done = os.path.join(folder, DONE)
    if os.path.exists(done):
        with open(done, encoding="utf-8") as file:
            if json.load(file) == settings:
                say(f"small web: {folder} is there already")
                return
        os.unlink(done)
    for name in ("archives", "site", "test"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    started = time.monotonic()

    def phase(text: str) -> None:
        say(f"small web: {time.monotonic() - started:5.1f} s  {text}")

    plan = make_plan(num_links, seed)
    made = distinct.draw_all(seed, plan.drawings, num_workers)
    phase(f"{len(made)} pictures of {len(glyphs.concepts())} concepts drawn")
    for name, original, how in plan.copies:
        made[name] = distinct.copy_near(seed, name, made[original], how)
    phase(f"{len(plan.copies)} copies made")
    site.write(plan, made, folder)
    phase(f"{len(plan.routes)} URLs of {len(plan.hosts)} hosts written")
    dealt = pages.deal(plan)
    places = archives.write(plan, dealt, os.path.join(folder, "archives"))
    phase(f"{len(plan.links)} links on {len(dealt)} pages written to archives")
    rows = truth.rows_of(dealt, places, plan, {name: pictures.sha256(one.data) for name, one in made.items()})
    truth.settle(rows)
    pq.write_table(truth.table(rows), os.path.join(folder, "truth.parquet"))
    write_lines(os.path.join(folder, "never.txt"), plan.never)
    write_lines(os.path.join(folder, "concepts.txt"), list(glyphs.concepts()))
    corpus = texts.corpus(glyphs.concepts(), pictures.PAIRS, CORPUS_LINES, plan.random)
    write_lines(os.path.join(folder, "corpus.txt"), corpus)
    phase(f"{len(rows)} rows of truth, {sum(row['stage'] == 'kept' for row in rows)} of them kept if balance keeps them")
    phase(f"{testset.write(seed, plan.count(10), os.path.join(folder, 'test'))} test pictures of {glyphs.TEST_FAMILY} drawn")
    with open(done, "w", encoding="utf-8") as file:
        json.dump(settings, file)


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.mini.web", description="Make the small web.")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--links", type=int, default=20_000, help="about how many image links; at least 600")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.links < 600:
        parser.error(f"--links: expected at least 600, found {given.links}")
    build(given.out, given.links, given.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
