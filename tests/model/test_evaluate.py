"""model/evaluate against NumPy oracles, its laws, and what it says about broken sets."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.evaluate import datasets, layouts, metrics, results, zero_shot
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import EvalSet
from model.evaluate.tasks import Result
from model.evaluate.workspace import Workspace
from tests.model.evaluation_set import COLORS, TEMPLATES, ColorEncoder, encode, text_features, write_set, write_tar

CLASSES = list(COLORS)


def open_space(folder: Path, **options: Any) -> tuple[Workspace, EvalSet]:
    """The set in a folder and a workspace beside it, with nothing kept yet."""
    config = EvaluateConfig(root=str(folder / f"root-{uuid.uuid4().hex}"), **{"batch_size": 7, "num_examples": 3, **options})
    space = Workspace(config, "m" * 64, encoder=ColorEncoder())
    return space, space.another(str(folder))


def predict(folder: Path, **options: Any) -> results.Predictions:
    space, eval_set = open_space(folder, **options)
    score = zero_shot.by_cosines(space.classifier(eval_set), space.facts())
    config = space.config
    embedded = space.embedded(eval_set, "test")
    return zero_shot.predict(embedded, score, batch_size=config.batch_size, num_examples=config.num_examples)[0]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_classifier_is_the_unit_mean_of_unit_prompt_features(tmp_path: Path) -> None:
    write_set(tmp_path, classes=CLASSES)
    for batch_size in (1, 4, 7, 1000):
        found = zero_shot.class_features(ColorEncoder(), layouts.open_set(str(tmp_path)), batch_size)  # pyright: ignore
        prompts = np.stack([[text_features(t.replace("{c}", name)) for t in TEMPLATES] for name in CLASSES])
        np.testing.assert_allclose(found, unit(unit(prompts).mean(axis=1)), rtol=1e-5)
        assert np.abs(found - unit(prompts.mean(axis=1))).max() > 1e-3  # another order of operations is another classifier


def test_predictions_equal_a_computation_in_numpy(tmp_path: Path) -> None:
    labels = write_set(tmp_path, classes=CLASSES)
    found = predict(tmp_path)
    prompts = np.stack([[text_features(t.replace("{c}", name)) for t in TEMPLATES] for name in CLASSES])
    classifier = unit(unit(prompts).mean(axis=1))
    pictures = []
    eval_set = layouts.open_set(str(tmp_path))
    for example in (example for unit in eval_set.split("test").units for example in layouts.examples(eval_set, unit)):
        image = datasets.decode(example.picture)
        assert not isinstance(image, str)
        pixels = datasets.preprocess(image, 8) / 255.0
        means = ((pixels - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)).mean(axis=(0, 1))
        pictures.append(np.append(means, 1.0))
    logits = np.exp(3.0) * unit(np.stack(pictures)) @ classifier.T
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.labels.tolist() == labels
    np.testing.assert_array_equal(found.ranked, np.argsort(-logits, axis=1)[:, :5])
    np.testing.assert_allclose(found.probabilities, -np.sort(-shares, axis=1)[:, :5], rtol=1e-3, atol=1e-6)


def test_the_batch_size_and_the_number_of_tars_change_nothing(tmp_path: Path) -> None:
    for shards in (1, 3):
        write_set(tmp_path / str(shards), classes=CLASSES, shards=shards)
    runs = [predict(tmp_path / str(shards), batch_size=size) for shards in (1, 3) for size in (1, 5, 100)]
    for run in runs[1:]:
        assert run.keys == runs[0].keys
        assert run.pictures == runs[0].pictures
        np.testing.assert_array_equal(run.ranked, runs[0].ranked)


def test_the_order_of_the_classes_does_not_matter(tmp_path: Path) -> None:
    scores = []
    for number, classes in enumerate((CLASSES, CLASSES[::-1], sorted(CLASSES))):
        write_set(tmp_path / str(number), classes=classes)
        found = predict(tmp_path / str(number))
        result = metrics.accuracy(found.labels, found.ranked, len(classes))
        per_class = dict(zip(classes, zip(result.right.tolist(), result.right5.tolist(), strict=True), strict=True))
        scores.append((result.top1, result.top5, result.mean_per_class, per_class))
    assert scores[0][0] > 0.3
    assert scores[1:] == scores[:1] * 2


@pytest.mark.parametrize("seed", range(20))
def test_accuracies_equal_counting_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_classes, num_pictures = int(rng.integers(2, 12)), int(rng.integers(1, 60))
    scores, labels = rng.normal(size=(num_pictures, num_classes)), rng.integers(0, num_classes, num_pictures)
    found = metrics.accuracy(labels, metrics.best(scores), num_classes)
    places = [sum(row > row[label]) for row, label in zip(scores, labels, strict=True)]  # classes before the truth
    assert found.top1 == pytest.approx(sum(place == 0 for place in places) / num_pictures)
    assert found.top5 == pytest.approx(sum(place < 5 for place in places) / num_pictures)
    rates = [
        sum(place == 0 for place, label in zip(places, labels, strict=True) if label == c) / (labels == c).sum()
        for c in range(num_classes)
        if (labels == c).any()
    ]
    assert found.mean_per_class == pytest.approx(sum(rates) / len(rates))
    assert found.chance == pytest.approx(1 / num_classes)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="weights are broken"):
        metrics.best(np.asarray([[1.0, np.nan]]))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (100, 37), (37, 101), (9, 300), (5, 5)])
def test_preprocessing_keeps_the_middle_square_of_the_resized_picture(width: int, height: int) -> None:
    rgb = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    found = datasets.preprocess(Image.fromarray(rgb), 16)
    shorter = min(width, height)
    whole = np.asarray(Image.fromarray(rgb).resize((16 * width // shorter, 16 * height // shorter), Image.Resampling.BICUBIC))
    top, left = round((whole.shape[0] - 16) / 2), round((whole.shape[1] - 16) / 2)
    np.testing.assert_array_equal(found, whole[top : top + 16, left : left + 16])


def spoil(folder: Path, name: str) -> None:
    good = encode(np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8), "png")
    texts = {"classnames": "classnames.txt", "templates": "zeroshot_classification_templates.txt", "nshards": "test/nshards.txt"}
    if name in texts:
        (folder / texts[name]).unlink()
    elif name == "placeholder":
        (folder / texts["templates"]).write_text("a picture\n")
    elif name == "count":
        (folder / texts["nshards"]).write_text("many\n")
    elif name == "tar":
        (folder / "test/1.tar").unlink()
    elif name == "cut":
        data = (folder / "test/0.tar").read_bytes()
        (folder / "test/0.tar").write_bytes(data[: len(data) // 2 + 100])
    else:
        spoiled = {
            "label": [("0.cls", b"6"), ("0.png", good)],
            "word": [("0.cls", b"red"), ("0.png", good)],
            "unlabelled": [("0.png", good)],
            "two": [("0.cls", b"1"), ("0.png", good), ("0.webp", good)],
            "empty": [],
        }[name]
        for number in (0, 1):
            write_tar(folder / f"test/{number}.tar", spoiled)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("classnames", r"classnames\.txt is not there: expected an evaluation set"),
        ("templates", r"templates\.txt is not there"),
        ("nshards", r"nshards\.txt is not there"),
        ("placeholder", r"needs \{c\} where the class goes, found 'a picture'"),
        ("count", r"expected the number of tars, found 'many'"),
        ("tar", r"1\.tar is not there, though nshards\.txt counts it"),
        ("cut", r"0\.tar: expected a whole tar"),
        ("label", r"0\.cls: expected a label from 0 to 5, found b'6'"),
        ("word", r"expected a label from 0 to 5, found b'red'"),
        ("unlabelled", r"expected one picture .* and a \.cls, found png"),
        ("two", r"expected one picture"),
        ("empty", r"expected pictures with labels, found none"),
    ],
)
def test_a_broken_set_is_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    write_set(tmp_path, classes=CLASSES)
    spoil(tmp_path, name)
    with pytest.raises(datasets.BadSet, match=message):
        predict(tmp_path)


def test_pictures_that_can_not_be_read_are_counted_and_named(tmp_path: Path) -> None:
    write_set(tmp_path, classes=CLASSES)
    good = encode(np.zeros((20, 20, 3), np.uint8), "png")
    bad = {"cut": good[: len(good) // 2], "svg": b"<svg/>", "nothing": b"", "pickle": b"\x80\x04."}
    write_tar(tmp_path / "test/1.tar", [m for name, data in bad.items() for m in ((f"{name}.cls", b"3"), (f"{name}.png", data))])
    space, eval_set = open_space(tmp_path)
    result = zero_shot.run(space, eval_set, "")
    assert result.num_pictures == 12
    assert result.unreadable.keys() == bad.keys()
    assert all("expected a picture" in why for why in result.unreadable.values())
    summary = results.write(space.config, "zero_shot", result, {"model": "m" * 64})
    assert summary["num_unreadable"] == 4
    assert "(4 unreadable)" in results.table_text([summary])
    assert {row["num_unreadable"] for row in results.write_scores(space.config).to_pylist()} == {4}


def test_the_hash_of_a_set_covers_its_bytes_and_not_its_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_set(tmp_path / name, classes=CLASSES)
    first = layouts.open_set(str(tmp_path / "a"))
    assert layouts.open_set(str(tmp_path / "b")).hash == first.hash
    seen = {first.hash}
    (tmp_path / "a/classnames.txt").write_text("\n".join([*CLASSES, "grey"]))
    seen.add(layouts.open_set(str(tmp_path / "a")).hash)
    tar = tmp_path / "b/test/1.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"\1")
    seen.add(layouts.open_set(str(tmp_path / "b")).hash)
    assert len(seen) == 3


def test_the_kept_pictures_are_right_and_wrong_ones_in_equal_number(tmp_path: Path) -> None:
    write_set(tmp_path, classes=CLASSES, num_pictures=60)
    found = predict(tmp_path, num_examples=5)
    right = found.ranked[:, 0] == found.labels
    assert sum(right[place] for place in found.pictures) == 5
    assert sum(~right[place] for place in found.pictures) == 5


def test_a_result_is_done_only_for_the_same_model_set_and_rows(tmp_path: Path) -> None:
    write_set(tmp_path / "set", classes=CLASSES)
    eval_set = layouts.open_set(str(tmp_path / "set"))
    config = EvaluateConfig(root=str(tmp_path), eval_set=str(tmp_path / "set"))
    wanted = results.identity("m1", eval_set, "zero_shot", {})
    result = Result(task="zero_shot", set="set", values={"accuracy": 0.5}, num_pictures=2, rows=results.ROWS.empty_table())
    assert results.finished(config, "set", "zero_shot", wanted) is None
    summary = results.write(config, "zero_shot", result, wanted)
    assert results.finished(config, "set", "zero_shot", wanted) == summary
    assert results.finished(config, "set", "zero_shot", results.identity("m2", eval_set, "zero_shot", {})) is None
    other = replace(eval_set, metric="mean_per_class")
    assert results.finished(config, "set", "zero_shot", results.identity("m1", other, "zero_shot", {})) is None
    (tmp_path / "evaluation/set.parquet").write_bytes(b"torn")
    assert results.finished(config, "set", "zero_shot", wanted) is None
