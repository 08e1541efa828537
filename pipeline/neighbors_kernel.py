"""The compiled inner loops of the near search: sort by a part of the hash, compare, join.

in      points: a 64-bit hash and 48 color bytes each, in the arrays `hashes` and `colors`, which rows point into
out     joins in a forest: parent[i] is a point of the same group, a smaller one or itself
law     a root only ever gets a smaller parent, so there are no cycles, and the root of a group is its smallest point
law     reads inside its arrays if every row is inside them
cost    `by_key` 15 ns a row, a comparison 0.4 ns, whatever the hashes. numba compiles all in 4 s once a machine and copy
        of the source
letters d bits that may differ; limit: how far a color byte may differ
"""

import numpy as np

from pipeline.compiled import compiled, count_bits, inner

Array = np.ndarray
U = np.uint64
HASH_BITS = U(64)
SPREAD = U(0x9E3779B97F4A7C15)  # odd: a product with it depends, in its high bits, on all lower ones
CHANNEL_VALUES = 256


@inner
def _root(parent, node):
    """The root of a node; halves the way there."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@inner
def _join(parent, one, other):
    one, other = _root(parent, one), _root(parent, other)
    if one < other:
        parent[other] = one
    else:
        parent[one] = other


@inner
def _is_like(one, other, limit):
    """Whether no color byte of two differs by more than the limit."""
    for channel in range(len(one)):
        a, b = one[channel], other[channel]
        if (a - b if a > b else b - a) > limit:
            return False
    return True


@inner
def _is_news(parent, colors, one, other, limit):
    """Whether two points of like hashes are near and not yet in one group."""
    return _root(parent, one) != _root(parent, other) and _is_like(colors[one], colors[other], limit)


@inner
def _key(value, mask, shift):
    """A number of 64 - shift bits; equal for hashes that agree on the mask, and seldom for others."""
    return ((value & mask) * SPREAD) >> shift


@compiled
def roots(parent, nodes) -> Array:
    """The root of each node.  [n] -> [n]"""
    found = np.empty(len(nodes), np.int64)
    for i in range(len(nodes)):
        found[i] = _root(parent, nodes[i])
    return found


@compiled
def join(parent, ones, others) -> None:
    """Make ones[i] and others[i] members of one group, for all i.  [k], [k]"""
    for i in range(len(ones)):
        _join(parent, ones[i], others[i])


@compiled
def by_key(hashes, rows, mask, num_bits) -> tuple[Array, Array]:
    """The rows in the order of a key of `num_bits` bits (1 to 32), and their hashes.  -> [n] int64, [n] uint64"""
    shift, half = HASH_BITS - U(num_bits), U((num_bits + 1) // 2)
    size, digit = len(rows), (U(1) << half) - U(1)
    values = np.empty(size, np.uint64)
    for i in range(size):
        values[i] = hashes[rows[i]]
    for step in range(2):
        low = U(step) * half
        starts = np.zeros(int(digit) + 2, np.int64)
        for i in range(size):
            starts[((_key(values[i], mask, shift) >> low) & digit) + U(1)] += 1
        starts = np.cumsum(starts)
        new_rows, new_values = np.empty(size, np.int64), np.empty(size, np.uint64)
        for i in range(size):
            place = (_key(values[i], mask, shift) >> low) & digit
            new_rows[starts[place]], new_values[starts[place]] = rows[i], values[i]
            starts[place] += 1
        rows, values = new_rows, new_values
    return rows, values


@compiled
def link_runs(rows, values, colors, parent, mask, num_bits, d, limit, crowd) -> tuple[Array, Array]:
    """Join the near points of each run of one key, of what `by_key` gave; runs of more than `crowd` rows are left.

    -> start and end of each run that was left.  [m], [m] int64
    """
    shift, size = HASH_BITS - U(num_bits), len(rows)
    starts, ends, num_left, start = np.empty(size // crowd + 1, np.int64), np.empty(size // crowd + 1, np.int64), 0, 0
    while start < size:
        key, end = _key(values[start], mask, shift), start + 1
        while end < size and _key(values[end], mask, shift) == key:
            end += 1
        if end - start > crowd:
            starts[num_left], ends[num_left] = start, end
            num_left += 1
        else:
            for i in range(start, end):
                value, row = values[i], rows[i]
                for j in range(i + 1, end):
                    if count_bits(value ^ values[j]) <= d and _is_news(parent, colors, row, rows[j], limit):
                        _join(parent, row, rows[j])
        start = end
    return starts[:num_left], ends[:num_left]


@compiled
def starts(values, mask, num_bits) -> Array:
    """Where the rows of each key begin in what `by_key` gave; one more at the end.  -> [2**num_bits + 1] int64"""
    counts = np.zeros((1 << num_bits) + 1, np.int64)
    for value in values:
        counts[_key(value, mask, HASH_BITS - U(num_bits)) + U(1)] += 1
    return np.cumsum(counts)


@compiled
def nearest(hashes, colors, mask, num_bits, begins, rows, values, known_colors, d, limit, found, distance) -> None:
    """Of the known points that agree with each hash on the mask and are near it, the one with the least distance, then the
    first: found[i] and distance[i], where that is better than what stands there. begins, rows, values: see `starts`."""
    for i in range(len(hashes)):
        key = _key(hashes[i], mask, HASH_BITS - U(num_bits))
        for j in range(begins[key], begins[key + U(1)]):
            differ, row = count_bits(hashes[i] ^ values[j]), rows[j]
            better = differ < distance[i] or (differ == distance[i] and row < found[i])
            if differ <= d and better and _is_like(colors[i], known_colors[row], limit):
                found[i], distance[i] = row, differ


@inner
def _ranges(rows, colors, channel, num_rest):
    """Where each value of the color byte `channel` begins and ends, among the rest and among those that stand by."""
    starts, ends = np.zeros((2, CHANNEL_VALUES), np.int64), np.zeros((2, CHANNEL_VALUES), np.int64)
    for i in range(len(rows)):
        ends[0 if i < num_rest else 1, colors[rows[i], channel]] += 1
    place = 0
    for side in range(2):
        for tint in range(CHANNEL_VALUES):
            starts[side, tint] = place
            place += ends[side, tint]
            ends[side, tint] = place
    return starts, ends


@compiled
def spread(rows, values, colors, channel, num_rest, parent, d, limit) -> None:
    """Join the near points of a crowd, spreading from point to point: whoever is reached leaves the rest.

    rows: [n], the rest first, then those that stand by, which are compared with the rest but not with each other; each of
    the two ascending in the color byte `channel`, so that only a window of it is looked at. `rows` and `values`, their
    hashes, are used up.
    """
    starts, ends = _ranges(rows, colors, channel, num_rest)
    reached_rows, reached_values = np.empty(num_rest, np.int64), np.empty(num_rest, np.uint64)
    for seeds in range(CHANNEL_VALUES):
        while ends[0, seeds] > starts[0, seeds]:
            ends[0, seeds] -= 1
            reached_rows[0], reached_values[0], num_reached = rows[ends[0, seeds]], values[ends[0, seeds]], 1
            while num_reached:
                num_reached -= 1
                row, value = reached_rows[num_reached], reached_values[num_reached]
                tint = np.int64(colors[row, channel])
                for near_tint in range(max(0, tint - limit), min(CHANNEL_VALUES - 1, tint + limit) + 1):
                    j = starts[0, near_tint]
                    while j < ends[0, near_tint]:
                        if count_bits(value ^ values[j]) <= d and _is_like(colors[row], colors[rows[j]], limit):
                            _join(parent, row, rows[j])
                            reached_rows[num_reached], reached_values[num_reached] = rows[j], values[j]
                            num_reached += 1
                            ends[0, near_tint] -= 1
                            rows[j], values[j] = rows[ends[0, near_tint]], values[ends[0, near_tint]]
                        else:
                            j += 1
                    for j in range(starts[1, near_tint], ends[1, near_tint]):
                        if count_bits(value ^ values[j]) <= d and _is_news(parent, colors, row, rows[j], limit):
                            _join(parent, row, rows[j])
