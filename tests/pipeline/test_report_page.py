"""jobs/report.py: the page holds the numbers of the files, loads nothing, and shows what strangers wrote as text."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from selectolax.lexbor import LexborHTMLParser

from jobs import report as job
from jobs._page import link, render
from jobs._plots import Line, plot
from jobs.report import ReportConfig
from model import report as model_report
from pipeline import report
from pipeline.errors import InputError
from tests.model import report_root as model_root
from tests.pipeline.report_root import HOSTILE, HOSTILE_QUERY, HOSTILE_URL, build

HOSTILE_CLASSES = ["<i>red</i>", "green", "blue", '"black"', "white", "</style><script>alert(3)</script>"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page") / "root"
    build(str(folder))
    model_root.build(folder, HOSTILE_CLASSES)
    return str(folder)


@pytest.fixture(scope="module")
def page(root: str) -> LexborHTMLParser:
    facts = report.collect(root, num_kept=1000, num_dropped=1000)
    made = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return LexborHTMLParser(render(root, "mini", facts, model_report.collect(root), made))


def test_nothing_in_the_page_loads_or_runs_anything(page: LexborHTMLParser) -> None:
    assert not page.css("script, iframe, object, embed, link, base, form, video, audio, source, image, foreignObject")
    images = 0
    for node in page.css("*"):
        for name, value in node.attributes.items():
            value = value or ""
            assert not name.startswith("on"), (node.tag, name)
            if name in ("src", "srcset", "data", "background", "poster", "action"):
                assert node.tag == "img"
                assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", value)
                images += 1
            if name in ("href", "xlink:href"):
                assert value.startswith(("http://", "https://") if node.tag == "a" and not value.startswith("#") else "#"), value
            if name in ("style", "clip-path"):
                assert set(re.findall(r"url\(.", value)) <= {"url(#"}
    assert images > 20
    assert not re.search(r"url\(|@import", page.css("style")[0].text())
    assert "default-src 'none'" in (page.css("meta[http-equiv]")[0].attributes["content"] or "")


def test_hostile_texts_are_shown_as_they_are_but_for_control_characters(page: LexborHTMLParser) -> None:
    shown = [node.text() for node in page.css("bdi")]
    assert HOSTILE.replace("\x07", "\ufffd") in shown
    assert HOSTILE_URL.removeprefix("http://") in shown
    assert HOSTILE_QUERY in shown
    for name in HOSTILE_CLASSES:
        assert name in shown


def test_only_http_urls_are_links_and_they_tell_nobody(page: LexborHTMLParser) -> None:
    links = [node for node in page.css("a") if not (node.attributes["href"] or "").startswith("#")]
    assert HOSTILE_URL in {node.attributes["href"] for node in links}
    assert all("noreferrer" in (node.attributes["rel"] or "") for node in links)
    assert "javascript:alert(1)" in [node.text() for node in page.css("bdi")]


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:x",
        "java\nscript:x",
        "data:text/html,x",
        "http://[",
        "//evil.test/",
        "",
        "http://a/\x00",
    ],
)
def test_other_urls_are_text(url: str) -> None:
    assert "<a" not in link(url)


def test_the_numbers_are_those_of_the_manifests(root: str, page: LexborHTMLParser) -> None:
    facts = report.collect(root)
    steps = page.css(".step")
    assert len(steps) == len(facts.funnel) == 7
    for node, step in zip(steps, facts.funnel, strict=True):
        assert node.css("h3")[0].text() == step.folder
        assert node.css(".counts span")[0].text() == f"{step.rows_in:,} → {step.rows_out:,}"
        told = {line.css("span")[0].text(): line.css(".num")[0].text() for line in node.css(".reason")}
        assert told == {reason: f"{count:,}" for reason, count in step.drops.items()}
    tiles = [node.text() for node in page.css(".tile b")]
    summary = model_report.collect(root).results[0].summary
    assert tiles[:5] == [
        f"{facts.funnel[-1].rows_out}",
        f"{facts.funnel[0].rows_in}",
        f"{summary['top1']:.1%}",
        f"{summary['top5']:.1%}",
        "6",
    ]
    assert len(page.css("#kept .card")) == facts.funnel[-1].rows_out


def test_a_root_with_only_its_first_stage_says_what_is_missing(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(Path(root, "1_candidates"), tmp_path / "1_candidates")
    job.main(ReportConfig(root=str(tmp_path)))
    path = tmp_path / "report/index.html"
    assert capsys.readouterr().out == f"report={path}\n"
    page = LexborHTMLParser(path.read_text())
    told = {section.id: [node.text() for node in section.css(".missing")] for section in page.css("section")}
    assert {name for name, lines in told.items() if lines} == {"kept", "queries", "training", "zeroshot", "scores", "provenance"}
    assert "queries, 2_matched, 3_balanced, 4_images, 5_unique, 5_unique/_trimmed, 6_shards" in told["provenance"][0]


def test_a_root_without_anything_is_a_mistake_and_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to report"):
        job.main(ReportConfig(root=str(tmp_path / "nowhere")))
    assert not (tmp_path / "nowhere").exists()


def test_a_plot_is_xml_in_the_pages_colours_and_a_function_of_its_data() -> None:
    lines = [Line(name="a<b", x=[1, 10, 100], y=[5, 4, 1]), Line(name="c", x=[1, 10, 100], y=[3, 3, 1])]
    first, second = (plot(lines, x_label="rank", logarithmic="xy", level={"limit": 2.0}) for _ in range(2))
    assert first == second
    texts = [node.text for node in ElementTree.fromstring(first).iter() if node.tag.endswith("text")]
    assert {"a<b", "c", "limit", "rank", "1", "10", "100"} <= set(texts)
    assert "var(--line-1)" in first
    assert "var(--line-2)" in first
    assert "#0000a" not in first


def test_a_model_without_a_logit_scale_is_shown_without_its_curve(root: str, tmp_path: Path) -> None:
    events = Path(root, "train", "events.jsonl").read_text()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "events.jsonl").write_text(re.sub(r'"logit_scale": [\d.]+, ', "", events))
    titles = []
    for folder in (root, str(tmp_path)):
        page = render(folder, "", report.collect(folder), model_report.collect(folder), datetime(2026, 1, 2, tzinfo=UTC))
        text = " ".join(LexborHTMLParser(page).body.text().split())  # type: ignore[union-attr]
        titles.append([title in text for title in ("logit scale", "last loss")])
    assert titles == [[True, True], [False, True]]
