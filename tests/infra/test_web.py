"""The generator: the same bytes each time, every case there, archives that others can read, margins that hold."""

import gzip
import hashlib
import html
import io
import json
import re
import tarfile
import unicodedata
from pathlib import Path

import ada_url
import ftfy
import numpy as np
import polars as pl
import pytest
from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from PIL import Image
from selectolax.lexbor import LexborHTMLParser
from warcio.archiveiterator import ArchiveIterator

from infra.mini import distinct, glyphs, pictures, texts, web
from infra.mini.server import Site
from pipeline import images
from pipeline.config import mini

WORDNET = Path("/usr/share/wordnet")
REASONS = {
    "crawl": {"no_text", "bad_url", "too_short", "too_long", "no_letters", "repeated_chars", "boilerplate", "language"},
    "match": {"no_query"},
    "balance": {"repeated_pair"},
    "download": {
        "robots", "dns", "address", "connect", "timeout", "redirect", "http_4xx", "http_5xx", "too_large", "opt_out",
        "not_an_image", "bomb", "too_small", "aspect", "decode",
    },
    "dedupe": {"placeholder", "duplicate", "near_duplicate"},
    "kept": {None},
}  # fmt: skip


def digests(folder):
    """sha256 of each file below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def contents(tar, member):
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def words(text):
    return f" {' '.join(re.findall(r'[a-z]+', text.casefold()))} "


def clean(text):
    """Cleaning as the contract says it."""
    return " ".join(unicodedata.normalize("NFC", ftfy.fix_text(html.unescape(text))).split())


def bodies(folder):
    """URL -> body, redirects followed, for URLs that end in a body."""
    site = Site(str(folder))
    found = {}
    for url in site.answers:
        at = url
        for _ in range(5):
            answer = site.answers.get(at)
            if answer is None or "Location" not in answer.headers:
                break
            at = ada_url.join_url(at, answer.headers["Location"])
        if answer is not None and "Location" not in answer.headers:
            found[url] = answer.body
    return found


def test_the_same_settings_give_the_same_bytes_and_another_seed_other_ones(mini_web, tmp_path):
    web.build(str(tmp_path / "again"), 600, seed=0, num_workers=1, say=lambda _: None)
    web.build(str(tmp_path / "other"), 600, seed=1, num_workers=1, say=lambda _: None)
    first, again, other = digests(mini_web), digests(tmp_path / "again"), digests(tmp_path / "other")
    assert first == again
    assert first["truth.parquet"] != other["truth.parquet"]


def test_a_finished_web_is_left_alone_and_an_unfinished_one_is_made_again(mini_web):
    told = []
    before = {path: path.stat().st_mtime_ns for path in mini_web.rglob("*")}
    web.build(str(mini_web), 600, seed=0, num_workers=1, say=told.append)
    assert told == [f"small web: {mini_web} is there already"]
    assert before == {path: path.stat().st_mtime_ns for path in mini_web.rglob("*")}


def test_pictures_do_not_depend_on_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(distinct, "POOL_FROM", 1)
    drawings = [pictures.drawing(0, f"p{i}", glyphs.concepts()[i]) for i in range(12)]
    alone, together = distinct.draw_all(0, drawings, 1), distinct.draw_all(0, drawings, 2)
    assert {name: made.data for name, made in alone.items()} == {name: made.data for name, made in together.items()}


def test_the_truth_has_every_reason_of_every_stage_and_no_other(truth):
    found = {stage: set(group["reason"]) for (stage,), group in truth.group_by("stage")}
    assert found == REASONS


def test_each_row_of_the_truth_has_its_own_place(truth):
    assert truth.select("page_url", "link_index", "attribute").is_duplicated().sum() == 0
    assert truth.group_by("page_url").agg(pl.col("archive").n_unique())["archive"].max() == 1


def test_all_links_of_a_page_have_rows_from_zero_on(truth):
    for _, page in truth.group_by("page_url"):
        assert sorted(set(page["link_index"])) == list(range(page["link_index"].n_unique()))


def test_urls_are_canonical_but_for_the_bad_ones(truth):
    good = truth.filter(pl.col("reason").ne_missing("bad_url"))
    for url in good["image_url"].unique():
        assert ada_url.normalize_url(url) == url
        assert "#" not in url
    for url in truth.filter(pl.col("reason") == "bad_url")["image_url"].unique():
        assert not url.startswith("http://") or not ada_url.check_url(url)


def test_texts_are_clean(truth):
    for text in truth["text"].unique():
        assert clean(text) == text


def test_concepts_are_many_distinct_and_drawn_by_enough_families():
    names = glyphs.concepts()
    assert len(names) >= 95
    for name in names:
        assert len(glyphs.families_of(name)) >= 4
        assert glyphs.glyphs(name, glyphs.TEST_FAMILY)
        assert not [other for other in names if other != name and words(name) in words(other)]


def test_a_text_names_its_own_concept_and_no_other(truth):
    for text, concept in truth.filter(pl.col("stage") != "crawl").select("text", "concept").iter_rows():
        assert [name for name in glyphs.concepts() if words(name) in words(text)] == ([concept] if concept else [])


def test_only_head_concepts_have_more_pairs_than_balance_lets_through():
    plan = web.make_plan(20_000, 0)
    balance = mini().balance
    pairs = {(link.url, text): link.concept for link in plan.links if link.stage not in ("crawl", "match")
             for text in link.texts.values()}  # fmt: skip
    counts = {concept: 0 for concept in glyphs.concepts()}
    for concept in pairs.values():
        counts[concept] += 1
    limit = round(balance.max_per_query * balance.oversample)
    assert {concept for concept, count in counts.items() if count > 1.5 * limit} == set(plan.heads)
    assert max(counts[concept] for concept in plan.others) < limit
    assert 18_000 < len(plan.links) < 22_000


def test_texts_without_a_query_share_no_word_with_the_corpus(mini_web, truth):
    corpus = words((mini_web / "corpus.txt").read_text()).split()
    unknown = " ".join(truth.filter(pl.col("reason") == "no_query")["text"])
    assert set(words(unknown).split()) <= set(texts.UNKNOWN_WORDS)
    assert not set(texts.UNKNOWN_WORDS) & set(corpus)
    assert not set(texts.UNKNOWN_WORDS) & set(" ".join(glyphs.concepts()).split())


@pytest.mark.skipif(not WORDNET.is_dir(), reason="WordNet's database files are not installed")
def test_texts_without_a_query_are_unknown_to_wordnet():
    lemmas = set()
    for path in WORDNET.glob("index.*"):
        if path.name != "index.sense":
            lemmas |= {line.split(" ", 1)[0] for line in path.read_text("utf-8", "replace").splitlines() if line[:1] != " "}
    assert len(lemmas) > 100_000
    assert not set(texts.UNKNOWN_WORDS) & lemmas


def test_the_test_family_is_never_served(mini_web, truth):
    assert set(truth["family"]) == {"", *glyphs.SERVED}
    served = {font for family in glyphs.SERVED for font, _ in glyphs.FONTS[family][0]}
    assert not served & {font for font, _ in glyphs.FONTS[glyphs.TEST_FAMILY][0]}
    site = Site(str(mini_web))
    shown = {hashlib.sha256(answer.body).digest() for answer in site.answers.values()}
    with tarfile.open(mini_web / "test/test/0.tar") as tar:
        for member in tar:
            assert hashlib.sha256(contents(tar, member)).digest() not in shown


def test_the_test_set_has_each_class_equally_often(mini_web):
    names = (mini_web / "test/classnames.txt").read_text().splitlines()
    templates = (mini_web / "test/zeroshot_classification_templates.txt").read_text().splitlines()
    assert names == list(glyphs.concepts())
    assert templates
    assert all("{c}" in template for template in templates)
    with tarfile.open(mini_web / "test/test/0.tar") as tar:
        members = {member.name: contents(tar, member) for member in tar}
    labels = [int(data) for name, data in members.items() if name.endswith(".cls")]
    assert len({labels.count(label) for label in range(len(names))}) == 1
    assert all(Image.open(io.BytesIO(data)).format == "PNG" for name, data in members.items() if name.endswith(".png"))


def test_archives_open_with_warcio_and_fastwarc_alike(mini_web, truth):
    for path in sorted((mini_web / "archives").iterdir()):
        with path.open("rb") as stream:
            kinds = []
            for record in ArchiveIterator(stream, check_digests=True):
                record.content_stream().read()
                checker = record.digest_checker
                assert checker is not None
                assert checker.passed is not False
                kinds.append(record.rec_type)
        with path.open("rb") as stream:
            fast = [
                (record.record_type, record.stream_pos, record.headers.get("WARC-Target-URI")) for record in FastIterator(stream)
            ]
        assert len(kinds) == len(fast)
        wanted = WarcRecordType.metadata if ".wat." in path.name else WarcRecordType.response
        places = {(offset, url) for kind, offset, url in fast if kind == wanted}
        rows = truth.filter(pl.col("archive") == path.name).select("record_offset", "page_url").unique()
        assert set(rows.iter_rows()) <= places


def test_a_record_alone_is_a_whole_gzip_member(mini_web, truth):
    name, offset, url = truth.filter(pl.col("archive").str.contains("wat")).select("archive", "record_offset", "page_url").row(0)
    with gzip.open(io.BytesIO((mini_web / "archives" / name).read_bytes()[offset:])) as stream:
        text = stream.read(100_000).decode()
    assert f"WARC-Target-URI: {url}" in text
    body = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    response = body["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
    assert any(link["path"] == "IMG@/src" for link in response["HTML-Metadata"]["Links"])


def test_a_page_has_as_many_images_as_the_truth_has_links(mini_web, truth):
    counts = dict(truth.group_by("page_url").agg(pl.col("link_index").n_unique()).iter_rows())
    seen = 0
    for path in sorted((mini_web / "archives").glob("*[0-9].warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                url = record.rec_headers.get_header("WARC-Target-URI")
                if record.rec_type == "response" and url in counts:
                    page = LexborHTMLParser(record.content_stream().read())
                    assert len(page.css("img, meta[property='og:image']")) == counts[url]
                    seen += 1
    assert seen > 10


def test_served_bytes_have_the_fate_that_the_truth_tells(mini_web, truth):
    served, config = bodies(mini_web), mini().download
    of_bytes = ("not_an_image", "bomb", "too_small", "aspect", "decode")
    rows = truth.filter(pl.col("stage").is_in(["kept", "dedupe"]) | pl.col("reason").is_in(of_bytes))
    for url, stage, reason, sha256 in rows.select("image_url", "stage", "reason", "sha256").iter_rows():
        picture = images.prepare(served[url], config)
        assert (picture if isinstance(picture, str) else None) == (reason if stage == "download" else None)
        if stage != "download":
            assert hashlib.sha256(served[url]).hexdigest() == sha256


def test_the_pipelines_own_measure_tells_copies_from_other_pictures(mini_web, truth):
    served, config, dedupe = bodies(mini_web), mini().download, mini().dedupe
    arrives = truth.filter(pl.col("sha256") != "").unique("sha256").sort("sha256")
    stored = [images.prepare(served[url], config) for url in arrives["image_url"]]
    stored = [picture for picture in stored if not isinstance(picture, str)]
    assert len(stored) == len(arrives)
    hashes = np.array([picture.phash for picture in stored], np.uint64)
    colors = np.array([list(picture.colors) for picture in stored], np.int16)
    names = arrives["picture"].to_numpy()
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    shades = np.array([np.abs(colors - row).max(axis=1) for row in colors])
    near = (bits <= dedupe.max_distance) & (shades <= dedupe.max_color_distance)
    same = names[:, None] == names[None, :]
    assert not (near & ~same).any()
    for name in arrives.filter(pl.col("picture").is_duplicated())["picture"].unique():
        rows = np.flatnonzero(names == name)
        assert near[np.ix_(rows, rows)].any(axis=0).all()
        assert near[np.ix_(rows, rows)].sum() >= 3 * len(rows) - 2  # connected


def test_a_survivor_has_strictly_the_most_specific_text(truth):
    for _, group in truth.filter((pl.col("stage") == "kept") | pl.col("reason").is_in(["duplicate", "near_duplicate"])).group_by(
        "picture"
    ):
        kept = group.filter(pl.col("stage") == "kept")
        assert len(kept) == 1
        others = group.filter(pl.col("stage") == "dedupe")
        assert all(texts.rank(text) < texts.rank(kept["text"][0]) for text in others["text"])
        same = others["sha256"] == kept["sha256"][0]
        assert others["reason"].to_list() == ["duplicate" if equal else "near_duplicate" for equal in same]
