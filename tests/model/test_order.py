"""The laws of the data order, over random manifests, lanes, windows and world sizes."""

import numpy as np
import pytest

from model.order import Order, mix, permutation, uniforms


def random_order(seed: int) -> Order:
    generator = np.random.default_rng(seed)
    shard_pairs = generator.integers(0, 30, generator.integers(3, 20))
    num_lanes = int(generator.choice([1, 2, 4, 8]))
    global_batch = num_lanes * int(generator.integers(1, 5))
    shard_pairs[0] = global_batch
    window = int(generator.integers(1, 6))
    return Order(shard_pairs.tolist(), seed=seed, global_batch=global_batch, num_lanes=num_lanes, window_shards=window)


def epoch_pairs(order: Order, epoch: int) -> np.ndarray:
    return np.concatenate([order.batch(epoch, step) for step in range(order.steps_per_epoch)])


@pytest.mark.parametrize("seed", range(30))
def test_an_epoch_has_every_pair_once_but_for_an_incomplete_last_batch(seed: int) -> None:
    order = random_order(seed)
    for epoch in (0, 1, 7):
        pairs = epoch_pairs(order, epoch)
        assert len(np.unique(pairs)) == len(pairs)
        assert pairs.min() >= 0
        assert pairs.max() < order.num_pairs
        assert 0 <= order.num_pairs - len(pairs) < order.global_batch


@pytest.mark.parametrize("seed", range(30))
def test_the_ranks_together_see_the_same_global_batch_whatever_their_number(seed: int) -> None:
    order = random_order(seed)
    for step in range(order.steps_per_epoch):
        whole = order.batch(3, step)
        for world_size in (1, 2, 4, 8):
            if order.num_lanes % world_size == 0:
                shares = [order.rank_batch(3, step, rank, world_size) for rank in range(world_size)]
                assert np.array_equal(np.concatenate(shares), whole)
                assert len({len(share) for share in shares}) == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_step_does_not_depend_on_what_was_asked_before(seed: int) -> None:
    order = random_order(seed)
    steps = [(epoch, step) for epoch in range(3) for step in range(order.steps_per_epoch)]
    in_order = {place: order.batch(*place) for place in steps}
    for place in np.random.default_rng(seed).permutation(steps)[:20]:
        epoch, step = int(place[0]), int(place[1])
        assert np.array_equal(random_order(seed).batch(epoch, step), in_order[epoch, step])


@pytest.mark.parametrize("seed", range(10))
def test_a_lane_opens_no_more_shards_at_once_than_its_window(seed: int) -> None:
    order = random_order(seed)
    count = order.global_batch // order.num_lanes
    for lane in range(order.num_lanes):
        lane_pairs = np.concatenate(
            [order.batch(0, step)[lane * count : (lane + 1) * count] for step in range(order.steps_per_epoch)]
        )
        runs = []  # shards in the order of their first use, with first and last place
        shards = order.shard_of(lane_pairs)
        for shard in dict.fromkeys(shards.tolist()):
            places = np.flatnonzero(shards == shard)
            runs.append((places[0], places[-1]))
        for place in range(len(lane_pairs)):
            assert sum(first <= place <= last for first, last in runs) <= order.window_shards


def test_epochs_and_seeds_give_other_orders() -> None:
    def order(seed: int) -> Order:
        return Order([50] * 8, seed=seed, global_batch=8, num_lanes=2, window_shards=4)

    first = epoch_pairs(order(0), 0)
    assert not np.array_equal(first, epoch_pairs(order(0), 1))
    assert not np.array_equal(first, epoch_pairs(order(1), 0))
    assert np.array_equal(first, epoch_pairs(order(0), 0))


def test_what_sits_out_is_other_pairs_in_other_epochs() -> None:
    order = Order([10] * 10, seed=0, global_batch=32, num_lanes=2, window_shards=2)
    out = [frozenset(range(100)) - frozenset(epoch_pairs(order, epoch).tolist()) for epoch in range(20)]
    assert all(len(pairs) == 4 for pairs in out)
    assert len(frozenset.union(*out)) > 30


def test_draws_are_uniform_and_independent_of_the_batch() -> None:
    draws = uniforms(np.arange(20_000), 3, 5, 1)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.03
    assert np.array_equal(uniforms(np.array([77, 3]), 3, 5, 1), draws[[77, 3]])
    assert sorted(permutation(1000, 4, 2).tolist()) == list(range(1000))


def test_the_mixer_is_splitmix64() -> None:
    state, outputs = 1234567, []
    for _ in range(3):
        outputs.append(int(mix(np.array([state], np.uint64))[0]))
        state += 0x9E3779B97F4A7C15
        state %= 2**64
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # published vector for seed 1234567


def test_what_can_not_be_ordered_is_refused() -> None:
    with pytest.raises(ValueError, match="the dataset has 7"):
        Order([3, 4], seed=0, global_batch=8, num_lanes=2, window_shards=1)
    with pytest.raises(ValueError, match="multiple of num_lanes, found 8 and 3"):
        Order([30], seed=0, global_batch=8, num_lanes=3, window_shards=1)
    order = Order([30], seed=0, global_batch=8, num_lanes=2, window_shards=1)
    with pytest.raises(ValueError, match="2 lanes, 4 ranks"):
        order.rank_batch(0, 0, 0, 4)
    with pytest.raises(ValueError, match="steps 0 to 2, found 3"):
        order.batch(0, 3)
