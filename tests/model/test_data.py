"""Batches and shards: a pure function of the step, exact crops, bad pairs counted and replaced, a bounded cache."""

import io
import json
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from model import data
from model.config import DataConfig
from model.data import Batches, crop, decode, iterate
from model.order import Order
from model.shards import BadDataset, OpenShard, ShardStore, iterate_texts, list_shards
from model.tokenizer import Tokenizer
from tests.model.small import jpeg, make_pairs, write_shards

CONFIG = DataConfig(num_lanes=4, window_shards=2, num_threads=3, prefetch_batches=4, pixel_cache_bytes=30_000)
RESOLUTION = 16


def batches_of(folder: Path | str, config: DataConfig = CONFIG, **store: int) -> Batches:
    shards = list_shards(str(folder))
    order = Order([shard.num_pairs for shard in shards], seed=0, global_batch=8, num_lanes=4, window_shards=2)
    tokenizer = Tokenizer.train(iterate_texts(str(folder), shards, 1000), 560, 16)
    settings = {"max_bytes": 10_000_000, "max_open": 4, **store}
    return Batches(order, ShardStore(str(folder), shards, cache_dir="", **settings), tokenizer, config, RESOLUTION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pairs = make_pairs(60, seed=1)
    write_shards(tmp_path, [pairs[:20], pairs[20:45], pairs[45:]])
    return tmp_path


def cropped(pixels: np.ndarray, draws: np.ndarray, min_side: float, resolution: int) -> np.ndarray:
    into = np.empty((resolution, resolution, 3), np.uint8)
    crop(pixels, draws, min_side, into)
    return into


def same(one: data.Batch, other: data.Batch) -> bool:
    parts = [(one.images.numpy(), other.images.numpy()), (one.tokens.numpy(), other.tokens.numpy()), (one.pairs, other.pairs)]
    return all(np.array_equal(left, right) for left, right in parts) and one.bad == other.bad


def test_a_batch_is_a_function_of_its_step_whatever_threads_and_caches_do(folder: Path) -> None:
    with closing(iterate(batches_of(folder), 0, 20, 0, 1, CONFIG)) as running:
        in_order = list(running)
    assert len(in_order) == 20
    no_cache = DataConfig(num_lanes=4, window_shards=2, num_threads=1, prefetch_batches=1)
    lone = batches_of(folder, no_cache, max_open=1)
    for step in (13, 3, 19, 0):
        assert same(lone.make(step, 0, 1), in_order[step])
    with closing(iterate(batches_of(folder), 15, 20, 0, 1, CONFIG)) as resumed:
        assert all(same(batch, in_order[15 + index]) for index, batch in enumerate(resumed))


def test_ranks_cut_the_same_global_batch(folder: Path) -> None:
    batches = batches_of(folder)
    whole = batches.make(9, 0, 1)
    shares = [batches.make(9, rank, 4) for rank in range(4)]
    assert np.array_equal(np.concatenate([share.pairs for share in shares]), whole.pairs)
    assert np.array_equal(np.concatenate([share.images.numpy() for share in shares]), whole.images.numpy())


def test_every_pair_brings_its_own_picture_and_text(folder: Path) -> None:
    pairs = make_pairs(60, seed=1)
    batches = batches_of(folder, DataConfig(num_lanes=4, window_shards=2, crop_min_side=1.0))
    for step in range(7):
        batch = batches.make(step, 0, 1)
        for place, pair in enumerate(batch.pairs):
            encoded, text = pairs[pair]
            pixels = decode(encoded, RESOLUTION)
            assert pixels is not None
            own = {cropped(pixels, np.array([0, x, x]), 1.0, RESOLUTION).tobytes() for x in np.linspace(0, 1, 3)}
            tokens = batches._tokenizer([text or ""])[0]
            assert np.array_equal(batch.tokens[place][: len(tokens)].numpy(), tokens.numpy())
            if pixels.shape[0] == pixels.shape[1]:
                assert batch.images[place].numpy().tobytes() in own


def test_a_crop_is_the_square_that_the_draws_name() -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[30:, :, 0] = 200
    pixels[:, 50:, 1] = 100
    lower_right = cropped(pixels, np.array([0.0, 1.0, 1.0]), 0.5, 10)  # a square of 30 px in the corner
    assert (lower_right[2:, 2:] == [200, 100, 0]).all()  # the filter looks over the edge of the square
    upper_left = cropped(pixels, np.array([0.0, 0.0, 0.0]), 0.5, 10)
    assert (upper_left[:-2, :-2] == [0, 0, 0]).all()
    whole_height = cropped(pixels, np.array([1.0, 0.0, 0.7]), 0.5, 60)  # a side of 60 leaves no choice of height
    assert np.array_equal(whole_height, pixels[:, :60])


def test_another_epoch_crops_the_same_pair_elsewhere(folder: Path) -> None:
    batches = batches_of(folder)
    steps = batches.order.steps_per_epoch
    seen: dict[int, list[bytes]] = {}
    for step in range(3 * steps):
        batch = batches.make(step, 0, 1)
        for place, pair in enumerate(batch.pairs):
            seen.setdefault(int(pair), []).append(batch.images[place].numpy().tobytes())
    assert sum(len(set(crops)) == len(crops) for crops in seen.values()) > 0.8 * len(seen)


def test_bad_pairs_are_counted_by_reason_and_replaced_by_the_next_good_pair(tmp_path: Path) -> None:
    pairs = make_pairs(16, seed=2)
    picture = pairs[0][0]
    pairs[3] = (picture, None)
    pairs[4] = (picture[: len(picture) // 2], "a torn picture")
    pairs[5] = (b"not a picture at all", "text only")
    pairs[15] = (b"\xff\xd8\xff\xe0" + bytes(40), "only a header")
    write_shards(tmp_path, [pairs])
    shard = OpenShard(str(tmp_path / "00000.tar"), str(tmp_path / "00000.parquet"), list_shards(str(tmp_path))[0])
    shard._offsets = np.where(np.arange(16) == 2, 10**9, shard._offsets)
    batches = batches_of(tmp_path)
    batches._store._open[0] = shard
    made = [batches.make(step, 0, 1) for step in range(2)]
    wanted = np.concatenate([batches.order.batch(0, step) for step in range(2)])
    replaced = {2: 6, 3: 6, 4: 6, 5: 6, 15: 0}
    assert np.concatenate([batch.pairs for batch in made]).tolist() == [replaced.get(pair, pair) for pair in wanted.tolist()]
    bad = {reason: sum(batch.bad.get(reason, 0) for batch in made) for reason in data.REASONS}
    assert bad == {"read": 1, "no_text": 2, "decode": 3 + 4 + 1}  # each bad pair on the way to a good one counts


def test_a_shard_without_a_good_pair_is_an_error(tmp_path: Path) -> None:
    write_shards(tmp_path, [[(b"nothing", "text")] * 16])
    with pytest.raises(BadDataset, match="no pair that can be used"):
        batches_of(tmp_path).make(0, 0, 1)


def test_a_decode_comes_out_smaller_but_not_below_what_is_needed() -> None:
    pixels = np.asarray(Image.new("RGB", (640, 480), (10, 200, 30)))
    small = decode(jpeg(pixels), 100)
    assert small is not None
    assert small.shape == (120, 160, 3)
    assert decode(b"GIF89a" + bytes(100), 10) is None


def photograph(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth colours with some edges."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("side", [230, 250, 400, 700])
def test_a_crop_is_pillows_but_for_rounding(side: int) -> None:
    pixels = photograph(side, side + 40, seed=side)
    for draws in np.random.default_rng(side).random((5, 3)):
        size = round(side * (0.9 + 0.1 * draws[0]))
        left, top = int(draws[1] * (side + 40 - size + 1)), int(draws[2] * (side - size + 1))
        box = (left, top, left + size, top + size)
        wanted = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC, box)).astype(int)
        assert np.abs(cropped(pixels, draws, 0.9, 224) - wanted).mean() < 0.5


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_decode_is_pillows_but_for_rounding(mode: str) -> None:
    picture = Image.fromarray(photograph(300, 420, seed=1)).convert(mode)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92)
    wanted = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB")).astype(int)
    found = decode(stream.getvalue(), 249)
    assert found is not None
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 1
    torn = decode(stream.getvalue()[:-2000], 249)
    assert torn is None


def test_a_remote_shard_is_copied_checked_and_let_go(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/shards/{path.name}", path.read_bytes())
    shards = list_shards("memory://shards")
    largest = max(shard.tar.num_bytes + shard.index.num_bytes for shard in shards)
    with ShardStore("memory://shards", shards, cache_dir=str(folder), max_bytes=largest, max_open=1) as store:
        cache = Path(store._cache_dir)
        for number in (0, 1, 2, 0, 1):
            assert store.open(number).image(3) is not None
            assert sum(path.stat().st_size for path in cache.iterdir()) <= largest
        store.copy(2)
        assert sum(path.stat().st_size for path in cache.iterdir()) <= largest
    assert not cache.exists()
    remote = batches_of("memory://shards", max_bytes=largest)
    with remote._store, closing(iterate(remote, 3, 10, 0, 1, CONFIG)) as running:
        local = batches_of(folder)
        assert all(same(batch, local.make(3 + index, 0, 1)) for index, batch in enumerate(running))
    memory.pipe_file("/shards/00001.tar", memory.cat_file("/shards/00001.tar")[::-1])
    store = ShardStore("memory://shards", shards, cache_dir=str(folder), max_bytes=largest, max_open=1)
    with store, pytest.raises(BadDataset, match=r"memory://shards/00001\.tar: expected sha256"):
        store.open(1)
    memory.rm("/shards", recursive=True)


def test_what_is_no_dataset_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"has no _MANIFEST\.json: the stage that makes it has not finished"):
        list_shards(str(tmp_path / "nowhere"))
    (folder / "00001.tar").write_bytes(b"short")
    with pytest.raises(BadDataset, match=r"00001\.tar: expected \d+ bytes, found 5"):
        ShardStore(str(folder), list_shards(str(folder)), cache_dir="", max_bytes=0, max_open=1).open(1)
    manifest = json.loads((folder / "_MANIFEST.json").read_text())
    del manifest["parts"][0]["files"][0]
    (folder / "_MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(BadDataset, match=r"part 00000: expected a \.tar and a \.parquet each"):
        list_shards(str(folder))


def test_a_part_may_hold_several_shards(folder: Path) -> None:
    manifest = json.loads((folder / "_MANIFEST.json").read_text())
    files = [file for part in manifest["parts"] for file in part["files"]]
    rows = sum(part["rows_out"] for part in manifest["parts"])
    dropped = {"name": "_dropped/all.parquet", "num_bytes": 1, "sha256": "0"}
    manifest["parts"] = [{"name": "all", "files": [*files, dropped], "rows_out": rows}]
    (folder / "_MANIFEST.json").write_text(json.dumps(manifest))
    assert [shard.num_pairs for shard in list_shards(str(folder))] == [20, 25, 15]
