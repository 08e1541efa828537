"""model/report.py: curves and zero-shot results are those of the files."""

import json
from pathlib import Path

import polars as pl
import pytest

from model import report
from tests.model.report_root import RUN, build, events


def test_an_empty_root_has_no_facts(tmp_path: Path) -> None:
    assert report.collect(str(tmp_path)) == report.Facts(training=None, model=None, results=[], scores=[], tasks=[])


def test_the_curves_are_the_last_runs_whole_lines(tmp_path: Path) -> None:
    build(tmp_path)
    training = report.collect(str(tmp_path)).training
    assert training is not None
    assert training.run == RUN
    assert training.steps == list(range(1, 61))
    for name, values in training.curves.items():
        assert values == [event[name] for event in events()]
    assert training.last == events()[-1]


def test_an_events_file_without_a_whole_line_is_no_training(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for content in ("", '{"step": 1', "[1]\n", '{"step": 1}\n'):
        (tmp_path / "train/events.jsonl").write_text(content)
        assert report.collect(str(tmp_path)).training is None


def test_zero_shot_facts_equal_a_count_of_the_rows(tmp_path: Path) -> None:
    summary = build(tmp_path)
    (found,) = report.collect(str(tmp_path)).results
    assert found.summary == summary
    rows = pl.read_parquet(tmp_path / "evaluation/set.parquet").with_columns(good=pl.col("label") == pl.col("predicted"))
    names = [entry["name"] for entry in summary["per_class"]]
    by_class = rows.group_by("label").agg(pl.len(), pl.col("good").sum())
    assert sorted(found.classes) == sorted((names[label], number, good) for label, number, good in by_class.iter_rows())
    rates = [right / pictures for _, pictures, right in found.classes]
    assert rates == sorted(rates, reverse=True)
    wrong = rows.filter(~pl.col("good")).group_by("label", "predicted").len()
    expected = {(names[label], names[predicted], number) for label, predicted, number in wrong.iter_rows()}
    assert set(found.mistakes) <= expected
    assert sum(number for *_, number in found.mistakes) == sum(
        sorted((n for *_, n in expected), reverse=True)[: len(found.mistakes)]
    )


def test_examples_are_sorted_into_right_and_wrong(tmp_path: Path) -> None:
    build(tmp_path)
    (found,) = report.collect(str(tmp_path)).results
    assert len(found.right) == len(found.wrong) == 6
    assert all(guess.guesses[0][0] == guess.truth for guess in found.right)
    assert all(guess.guesses[0][0] != guess.truth for guess in found.wrong)
    assert all(guess.picture.startswith(b"\x89PNG") for guess in found.right + found.wrong)


def test_a_model_that_is_not_finished_is_none(tmp_path: Path) -> None:
    build(tmp_path)
    found = report.collect(str(tmp_path)).model
    assert found is not None
    assert found["run"] == RUN
    assert found["config"] == json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/_MANIFEST.json").unlink()
    assert report.collect(str(tmp_path)).model is None


@pytest.mark.parametrize("name", ["json", "parquet"])
def test_an_evaluation_needs_both_files(tmp_path: Path, name: str) -> None:
    build(tmp_path)
    (tmp_path / f"evaluation/set.{name}").unlink()
    if name == "json":
        assert report.collect(str(tmp_path)).results == []
    else:
        with pytest.raises(FileNotFoundError):
            report.collect(str(tmp_path))
