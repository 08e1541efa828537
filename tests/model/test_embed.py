"""Embedding and search: every item once, whatever its container; resumed, by workers; hits against brute force."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs import embed as embed_job
from jobs import search as search_job
from model import collection, embed, objectives
from model.checkpoint import save_model
from model.collection import BadCollection
from model.embed import EmbedConfig
from model.evaluate import datasets
from model.search import Search
from model.tokenizer import Tokenizer
from pipeline.errors import InputError
from tests.model.evaluation_set import encode, write_tar
from tests.model.peers import small_vit
from tests.model.test_evaluate_job import save_small_model


def pictures(count: int, seed: int = 0) -> dict[str, bytes]:
    """Smooth pictures of several sizes and formats."""
    chance = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        height, width = chance.integers(20, 150, 2)
        corners = chance.integers(0, 255, (2, 2, 3)).astype(np.uint8)
        rgb = np.asarray(datasets.Image.fromarray(corners).resize((int(width), int(height)), datasets.Image.Resampling.BICUBIC))
        ending = ("jpg", "png", "webp")[number % 3]
        made[f"{number:03}.{ending}"] = encode(rgb, ending)
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    save_small_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures in a folder, three of which can not be read; the same in tars and in a table."""
    folder = tmp_path_factory.mktemp("source")
    given = pictures(30)
    given["005.webp"], given["006.jpg"], given["007.png"] = b"no picture", given["006.jpg"][:300], b""
    for name, data in given.items():
        path = folder / "folder" / f"sub{int(name[:3]) % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "folder" / "notes.md").write_text("not a picture")
    for number in range(3):
        some = [(name, data) for name, data in given.items() if int(name[:3]) // 10 == number]
        members = [one for name, data in some for one in ((name, data), (f"{name[:3]}.txt", f"text {name[:3]}".encode()))]
        write_tar(folder / "tars" / f"{number}.tar", members)
    (folder / "table").mkdir()
    table = pa.table({"image": [{"bytes": data, "path": name} for name, data in given.items()], "text": list(given)})
    pq.write_table(table, folder / "table" / "rows.parquet", row_group_size=7)
    return folder


def run(root: Path, source: Path, **options: Any) -> tuple[dict[str, Any], pa.Table]:
    config = EmbedConfig(root=str(root), source=str(source), batch_size=4, **options)
    embed_job.main(config)
    return embed.load(config.folder)


def by_number(table: pa.Table) -> dict[str, Any]:
    return {row["key"].rsplit("/", 1)[-1][:3]: row["features"] for row in table.to_pylist()}


def test_a_folder_tars_and_a_table_give_the_same_vectors(root: Path, source: Path) -> None:
    manifest, folder = run(root, source / "folder")
    assert (manifest["rows"], manifest["unreadable"]) == (30, 3)
    assert sum(row["unreadable"] is not None for row in folder.to_pylist()) == 3
    tars = run(root, source / "tars")[1]
    assert tars["text"].to_pylist() == [f"text {number:03}" for number in range(30)]
    wanted, found = by_number(folder), by_number(tars)
    rows = run(root, source / "table")[1].to_pylist()
    assert [row["key"] for row in rows] == [f"rows.parquet#{number}" for number in range(30)]
    for number, row in enumerate(rows):
        key = f"{number:03}"
        for other in (found[key], row["features"]):
            assert (other is None) == (wanted[key] is None) == (number in (5, 6, 7))
            if other is not None:
                np.testing.assert_allclose(other, wanted[key], atol=1e-5)
                assert np.linalg.norm(other) == pytest.approx(1, abs=1e-5)


def test_a_second_run_makes_nothing_and_a_torn_part_is_made_again(root: Path, source: Path, capsys: Any) -> None:
    config = EmbedConfig(root=str(root), source=str(source / "tars"), name="again")
    embed_job.main(config)
    parts = sorted(Path(config.folder).glob("part-*.parquet"))
    before = [part.read_bytes() for part in parts]
    parts[1].write_bytes(before[1][: len(before[1]) // 2])
    parts[2].unlink()
    embed_job.main(config)
    assert [part.read_bytes() for part in parts] == before
    capsys.readouterr()
    embed_job.main(config)
    assert ", 0 to do" in capsys.readouterr().out


def test_texts_of_files_tables_and_tars(root: Path, source: Path, tmp_path: Path) -> None:
    lines = ["a red square", "", "green", "the picture is blue and long " * 5, "black"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = run(root, tmp_path / "list.txt", what="texts")[1].to_pylist()
    assert [row["text"] for row in found] == [line.strip() for line in lines if line]
    encoder = embed_job.Worker(EmbedConfig(root=str(root))).encoder
    for row in found:
        alone = embed.unit_length(encoder.texts([row["text"]]))[0]
        np.testing.assert_allclose(row["features"], alone, atol=1e-5)
    assert run(root, source / "table", what="texts")[0]["rows"] == 30
    assert run(root, source / "tars", what="texts")[1]["text"].to_pylist()[3] == "text 003"


def test_what_can_not_be_embedded_is_told(root: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        run(root, tmp_path / "nowhere")
    with pytest.raises(InputError, match="found none of 0 files"):
        run(root, tmp_path)
    (tmp_path / "torn.tar").write_bytes((source / "tars" / "0.tar").read_bytes()[:700])
    with pytest.raises(InputError, match="a whole tar"):
        run(root, tmp_path / "torn.tar")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(InputError, match="a Parquet file"):
        run(root, tmp_path / "bad.parquet")
    data = bytearray((source / "table" / "rows.parquet").read_bytes())
    data[100:3000] = bytes(2900)
    (tmp_path / "damaged.parquet").write_bytes(data)
    with pytest.raises(InputError, match="row group 0 can not be read"):
        run(root, tmp_path / "damaged.parquet")
    with pytest.raises(InputError, match="expected a column pixels, found image, text"):
        run(root, source / "table", column="pixels", name="other")
    with pytest.raises(BadCollection, match=r"run jobs/embed.py first"):
        embed.load(str(tmp_path / "none"))


@pytest.mark.parametrize("size", [(500, 375), (224, 224), (100, 900), (1600, 1200)])
def test_a_picture_decoded_small_is_nearly_the_picture(size: tuple[int, int]) -> None:
    corners = np.random.default_rng(0).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    sink = io.BytesIO()
    datasets.Image.fromarray(corners).resize(size, datasets.Image.Resampling.BICUBIC).save(sink, "JPEG", quality=95)
    small, whole = embed.decode(sink.getvalue(), 64), datasets.decode(sink.getvalue())
    assert not isinstance(small, str)
    assert not isinstance(whole, str)
    assert min(small.size) >= min(64, min(size))
    a, b = (datasets.preprocess(image, 64).astype(int) for image in (small, whole))
    assert np.abs(a - b).mean() < 2


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_what_brute_force_finds(tmp_path: Path, seed: int) -> None:
    chance = np.random.default_rng(seed)
    vectors = embed.unit_length(chance.standard_normal((3000, 24)).astype(np.float32))
    table = pa.table({"key": [f"{n}" for n in range(3000)], "text": [""] * 3000,
                      "unreadable": pa.array([None] * 3000, pa.string()),
                      "features": pa.array(list(vectors), pa.list_(pa.float32()))})  # fmt: skip
    part = embed.write_part(str(tmp_path), 0, table.cast(embed.PARTS), "x")
    embed.write_manifest(str(tmp_path), [part], {"model": "m", "checkpoint": ""})
    exact, graph = Search(str(tmp_path)), Search(str(tmp_path), exact=100)
    assert (tmp_path / "_index.usearch").exists()
    hits = 0
    for _ in range(50):
        question = chance.standard_normal(24)
        wanted = np.argsort(-(vectors @ question), kind="stable")[:10]
        assert [hit.key for hit in exact.nearest(question)] == [f"{row}" for row in wanted]
        found = graph.nearest(question)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        hits += len({hit.key for hit in found} & {f"{row}" for row in wanted})
    assert hits >= 0.95 * 500
    with pytest.raises(BadCollection, match="another model"):
        exact.nearest(np.ones(7))
    (tmp_path / "_index.usearch").write_bytes(b"torn")  # a torn index is made again
    assert Search(str(tmp_path), exact=100).nearest(vectors[7])[0].key == "7"


def test_a_picture_finds_itself_and_a_text_finds_something(root: Path, source: Path, capsys: Any) -> None:
    run(root, source / "tars", name="search")
    capsys.readouterr()
    config = search_job.SearchConfig(root=str(root), name="search-images", count=3)
    search_job.main(replace(config, image=str(source / "folder/sub1/009.jpg")))
    first = capsys.readouterr().out.splitlines()
    assert len(first) == 3
    assert first[0].split() == ["1.000", "0.tar/009.jpg", "text", "009"]
    search_job.main(replace(config, text="a red square"))
    assert len(capsys.readouterr().out.splitlines()) == 3
    for options, says in (
        ({}, "--text or --image"), ({"image": "nothing.jpg"}, "is not there"), ({"text": "a", "name": "no"}, "run jobs/embed.py")
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            search_job.main(replace(config, **options))


def test_another_model_is_refused(root: Path, source: Path, tmp_path: Path) -> None:
    config = EmbedConfig(root=str(root), source=str(source / "tars"), name="mixed")
    embed_job.main(config)
    path = Path(config.folder) / embed.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "0" * 64}))
    with pytest.raises(InputError, match="embedded by another model"):
        search_job.main(search_job.SearchConfig(root=str(root), name="mixed-images", text="red"))


def test_a_model_that_predicts_texts_gives_them_no_vectors(source: Path, tmp_path: Path) -> None:
    config = replace(small_vit(), objective="caption")
    tokenizer = Tokenizer.train(
        ["a red text of red words"] * 3, vocab_size=config.text.vocab_size, context_length=config.text.context_length
    )
    config = replace(config, text=replace(config.text, vocab_size=tokenizer.vocab_size))
    save_model(str(tmp_path / "model"), objectives.build(config), tokenizer, config, {"step": 1})
    assert run(tmp_path, source / "tars")[0]["unreadable"] == 3
    with pytest.raises(InputError, match="two towers for texts, found one of caption"):
        run(tmp_path, source / "tars", what="texts")


@pytest.mark.slow
def test_workers_on_ray_make_the_same_rows(ray_address: str, root: Path, source: Path) -> None:
    torch.set_num_threads(1)
    alone = run(root, source / "table", name="alone")[1]
    manifest, together = run(root, source / "table", name="together", num_workers=2)
    assert (manifest["rows"], manifest["unreadable"]) == (30, 3)
    assert together.drop_columns(["features"]).equals(alone.drop_columns(["features"]))
    for here, there in zip(alone["features"].to_pylist(), together["features"].to_pylist(), strict=True):
        assert (here is None) == (there is None)
        if here is not None:
            np.testing.assert_allclose(here, there, atol=1e-5)


def test_units_do_not_depend_on_who_asks(source: Path) -> None:
    first = collection.units(str(source / "table"), "images")
    assert first == collection.units(str(source / "table"), "images")
    assert [unit.row_group for unit in first] == [0, 1, 2, 3, 4]
    assert sum(1 for unit in first for _ in collection.items(unit, "images")) == 30
