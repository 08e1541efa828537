"""The compiled inner loops of the JPEG reader: the entropy-coded bytes of a baseline scan -> planes of reduced size.

in      the bytes of one interleaved scan, its Huffman codes as `table` writes them, where the blocks of an MCU go; hostile
out     the samples of each component at N/8 of its size, or False: what is not plainly a whole and sound scan
law     reads and writes inside its arrays, whatever the bytes
law     the same bytes give the same samples on every machine: floats are multiplied and added in one order
cost    what a picture at N/8 does not need of a block is passed over, up to 13 bits and several codes in one step
source  ITU-T T.81: annex C (Huffman codes), F.2.2 (decoding), A.3.3 (the inverse transform)
letters N samples kept of a block's 8, each way; u and v its frequencies, down and across; `bits` the next bits of the scan, the
        first one highest; `at` the place of the byte after them; `left` how many bits they are, in its low six bits, and
        above those how many coefficients of the block are to come

A sample at N/8 is the mean of its part of the block, of which only the first N x N frequencies are known.
"""

import numpy as np

from pipeline.compiled import bare, bare_inner, compiled, load_big_endian, load_word, store_word

U = np.uint64
WORD = 8
BLOCK = 64  # coefficients
ZIGZAG = np.array(
    [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42,
     49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63]
)  # fmt: skip

MAX_CODE_BITS = 16
MAX_DC_BITS, MAX_AC_BITS = 11, 10  # of the values in 8-bit pictures
LONGEST_BITS = MAX_CODE_BITS + MAX_DC_BITS
SLACK = 2 * BLOCK * LONGEST_BITS // 8  # bytes after the scan's, zeros: a block is read to its end before anybody looks

# A Huffman code is a row of uint16 numbers, in five ranges:
# ENTRIES, by the next CODE_BITS bits: bits 0-5 the bits of code and value, 6-10 how far the place moves on, 0 where the block
#   ends, 11-14 the bits of the value; all 0 where the code is longer, or none;
# SKIPS, by the next SKIP_BITS bits: bits 0-5 the bits of all codes and values that fit, 6-13 how far the place moves on with
#   them, and END where the block ends;
# LIMITS, by size: a code of that size, and of no smaller one, is below;
# OFFSETS, by size: modulo 2**16, what makes a code of that size a place in
# SYMBOLS: entries like the first, of every code.
CODE_BITS, SKIP_BITS = 9, 13
CODE_SHIFT, SKIP_SHIFT = U(64 - CODE_BITS), U(64 - SKIP_BITS)
SKIPS = 1 << CODE_BITS
LIMITS = SKIPS + (1 << SKIP_BITS)
OFFSETS = LIMITS + MAX_CODE_BITS + 1
SYMBOLS = OFFSETS + MAX_CODE_BITS + 1
ROW = SYMBOLS + 256
TAKEN = 63
STEP_SHIFT, SIZE_SHIFT = 6, 11
STEP, TAKEN_AND_STEP = 31 << STEP_SHIFT, (1 << SIZE_SHIFT) - 1
COEFFICIENT = 1 << STEP_SHIFT  # one of them, as `left` counts
END = 128
NOTHING_FITS = (END + 127) << STEP_SHIFT
BROKEN = -1

RESTART_FIRST, END_OF_IMAGE = 0xD0, 0xD9
LOW_BITS, HIGH_BITS = U(0x0101010101010101), U(0x8080808080808080)
ZERO, ONE = U(0), U(1)
LEVEL = np.float32(128.5)  # T.81's level shift, and one half to round


@compiled
def unstuff(data, start, out, starts) -> tuple[int, int]:
    """Copy the scan from data[start:] without what is not its own.  -> (bytes copied, restarts), or (-1, 0)

    out must hold as many bytes as are left of data, and SLACK. starts takes the place in out after each
    restart marker. -1: the scan does not end with the end of the picture, or has more restarts than there is room for.
    """
    end, at, length, restarts = len(data), start, 0, 0
    while True:
        while at + WORD <= end:
            word = load_word(data, U(at))
            others = ~word
            if ((others - LOW_BITS) & word & HIGH_BITS) != U(0):
                break
            store_word(out, U(length), word)
            at += WORD
            length += WORD
        stop = min(at + WORD, end)
        while at < stop and data[at] != 0xFF:
            out[length] = data[at]
            at += 1
            length += 1
        if at + 1 >= end:
            return -1, 0
        if data[at] != 0xFF:
            continue
        mark = data[at + 1]
        at += 2
        if mark == 0:
            out[length] = 0xFF
            length += 1
        elif mark == END_OF_IMAGE:
            break
        elif mark == RESTART_FIRST + (restarts & 7) and restarts + 1 < len(starts):
            starts[restarts] = length
            restarts += 1
        else:
            return -1, 0
    out[length : length + SLACK] = 0
    return length, restarts


@compiled
def table(counts, symbols, is_dc, row) -> bool:
    """Write a Huffman code into `row`, uint16 [ROW]; False where it is none of an 8-bit picture.

    counts: codes of 1 to 16 bits, 17 numbers, the first is unused. symbols: as many as there are codes, at most 256
    """
    code, place = 0, 0
    row[:] = 0
    firsts = np.zeros(1 << SKIP_BITS, np.uint16)
    for size in range(1, MAX_CODE_BITS + 1):
        row[OFFSETS + size] = (place - code) & 0xFFFF
        for _ in range(counts[size]):
            symbol = np.int64(symbols[place])
            value_bits, step = (symbol, 1) if is_dc else (symbol & 15, (symbol >> 4) + 1)
            if value_bits > (MAX_DC_BITS if is_dc else MAX_AC_BITS) or code >= (1 << size) - 1:
                return False
            ends = not is_dc and symbol == 0
            if not (is_dc or value_bits or ends or step == 16):
                return False
            taken = size + value_bits
            entry = taken | (0 if ends else step) << STEP_SHIFT | value_bits << SIZE_SHIFT
            row[SYMBOLS + place] = entry
            if size <= CODE_BITS:
                first = code << (CODE_BITS - size)
                row[first : first + (1 << (CODE_BITS - size))] = entry
            if taken <= SKIP_BITS:
                first = code << (SKIP_BITS - size)
                firsts[first : first + (1 << (SKIP_BITS - size))] = taken | (END if ends else step) << STEP_SHIFT
            code += 1
            place += 1
        row[LIMITS + size] = code
        code <<= 1
    if not is_dc:
        _join(firsts, row[SKIPS:LIMITS])
    return True


@bare_inner
def _join(firsts, skips) -> None:
    """skips: as many codes with their values as fit. firsts: the first one alone, 0 where it does not fit."""
    for index in range(1 << SKIP_BITS):
        left, rest, steps, entry = SKIP_BITS, index, 0, np.int64(firsts[index])
        while entry != 0:
            taken, step = entry & TAKEN, entry >> STEP_SHIFT
            if taken > left or steps + (step & (END - 1)) > BLOCK:
                break
            left -= taken
            steps += step
            rest = (rest << taken) & ((1 << SKIP_BITS) - 1)
            if step >= END:
                break
            entry = np.int64(firsts[rest])
        skips[index] = (SKIP_BITS - left) | steps << STEP_SHIFT if left < SKIP_BITS else NOTHING_FITS


@bare_inner
def _refill(stream, bits, left, at):
    """At least 56 bits at hand."""
    have = U(left) & U(TAKEN)
    return bits | load_big_endian(stream, at) >> have, left | 56, at + ((U(63) - have) >> U(3))


@bare
def _rare(bits, row, tables):
    """The entry of a code that is longer than CODE_BITS; 0 where there is no such code."""
    for size in range(CODE_BITS + 1, MAX_CODE_BITS + 1):
        code = bits >> U(64 - size)
        if code < U(tables[row + U(LIMITS + size)]):
            place = (code + U(tables[row + U(OFFSETS + size)])) & U(255)
            return np.int64(tables[row + U(SYMBOLS) + place])
    return 0


@bare_inner
def _entry(bits, row, tables):
    """What the next code means; 0 where there is no such code."""
    entry = np.int64(tables[row + (bits >> CODE_SHIFT)])
    return entry if entry else _rare(bits, row, tables)


@bare_inner
def _value(bits, entry):
    """The value after the next code, by T.81's EXTEND.  -> int64"""
    size, taken = U(entry) >> U(SIZE_SHIFT), U(entry) & U(TAKEN)
    most = np.int64(ONE << size) - 1
    raw = np.int64(bits >> (U(64) - taken)) & most
    return raw if (raw << 1) > most else raw - most


@bare_inner
def _keep(stream, bits, left, at, stop, row, tables, places, first, coefficients, start):
    """Read a block's AC coefficients while `left` is at least `stop`, and put each in its place."""
    while left >= stop:
        if left & TAKEN < LONGEST_BITS:
            bits, left, at = _refill(stream, bits, left, at)
        entry = _entry(bits, row, tables)
        value = _value(bits, entry)
        bits <<= U(entry) & U(TAKEN)
        left -= entry & TAKEN_AND_STEP
        if left < 0 or entry & STEP == 0:
            return bits, left & TAKEN if entry and entry & STEP == 0 else BROKEN, at
        coefficients[start + places[first + U(left >> STEP_SHIFT)]] = np.int16(value)
    return bits, left, at


@bare_inner
def _pass_over(stream, bits, left, at, row, tables):
    """Go on to the end of the block."""
    skips = row + U(SKIPS)
    while left >= COEFFICIENT:
        bits, left, at = _refill(stream, bits, left, at)
        entry = np.int64(tables[skips + (bits >> SKIP_SHIFT)])
        for _ in range(3):
            if left - entry < COEFFICIENT:
                break
            bits <<= U(entry) & U(TAKEN)
            left -= entry
            entry = np.int64(tables[skips + (bits >> SKIP_SHIFT)])
        step, after = entry >> STEP_SHIFT, left - entry
        if after >= COEFFICIENT:
            bits <<= U(entry) & U(TAKEN)
            left = after
            continue
        if after >= 0 or END <= step < END + (left >> STEP_SHIFT):
            return bits << (U(entry) & U(TAKEN)), after & TAKEN, at
        bits, left, at = _refill(stream, bits, left, at)
        entry = _entry(bits, row, tables)
        bits <<= U(entry) & U(TAKEN)
        left -= entry & TAKEN_AND_STEP
        if left < 0 or entry & STEP == 0:
            return bits, left & TAKEN if entry and entry & STEP == 0 else BROKEN, at
    return bits, left, at


@bare_inner
def _block(stream, bits, left, at, dc, ac, tables, stop, places, first, coefficients, start, before):
    """Read a block.  -> bits, left, or BROKEN, at, its DC value; `before`: the DC value before it"""
    bits, left, at = _refill(stream, bits, left, at)
    entry = _entry(bits, dc, tables)
    if entry == 0:
        return bits, BROKEN, at, before
    value = before + _value(bits, entry)
    coefficients[start] = np.int16(value)
    bits <<= U(entry) & U(TAKEN)
    left += (BLOCK - 1) * COEFFICIENT - (entry & TAKEN)
    bits, left, at = _keep(stream, bits, left, at, stop, ac, tables, places, first, coefficients, start)
    if left >= COEFFICIENT:
        bits, left, at = _pass_over(stream, bits, left, at, ac, tables)
    return bits, left, at, value


@bare_inner
def _is_used_up(left, at, end) -> bool:
    """Whether what was read ends with the byte before `end`; up to seven bits may be left of it."""
    over = 8 * (end - np.int64(at)) + left
    return 0 <= over < 8


@bare_inner
def _mix(one, other, one_weight, other_weight, out, again) -> None:
    """out = (or, again, +=) the sum of two lines of numbers, each times its weight."""
    if again:
        for block in range(len(out)):
            out[block] += np.float32(one[block]) * one_weight + np.float32(other[block]) * other_weight
    else:
        for block in range(len(out)):
            out[block] = np.float32(one[block]) * one_weight + np.float32(other[block]) * other_weight


@bare_inner
def _draw(coefficients, start, factors, weights, half, mixed, plane, row) -> None:
    """The samples of a line of blocks, from plane's `row` on; half and mixed: room to work in."""
    size, blocks = len(weights), plane.shape[2]
    mixed = mixed[:blocks]
    for v in range(size):
        for u in range(0, size, 2):
            first, second = u * size + v, min(u + 1, size - 1) * size + v
            one = coefficients[start + first * blocks : start + (first + 1) * blocks]
            other = coefficients[start + second * blocks : start + (second + 1) * blocks]
            for y in range(size):
                out = half[(y * size + v) * blocks : (y * size + v + 1) * blocks]
                _mix(one, other, weights[y, u] * factors[first], weights[y, u + 1] * factors[second], out, u > 0)
    for y in range(size):
        for x in range(size):
            for v in range(0, size, 2):
                first, second = (y * size + v) * blocks, (y * size + min(v + 1, size - 1)) * blocks
                _mix(half[first : first + blocks], half[second : second + blocks], weights[x, v], weights[x, v + 1], mixed, v > 0)
            out = plane[x, row + y]
            for block in range(blocks):
                level = mixed[block] + LEVEL
                level = level if level > np.float32(0) else np.float32(0)
                out[block] = np.uint8(level if level < np.float32(255) else np.float32(255))


@bare
def scan(stream, starts, interval, shape, tables, layout, lines, stops, places, factors, weights, planes, room) -> bool:
    """Read a whole scan; False where it is not plainly sound.

    stream, starts: from `unstuff`, starts with the scan's length behind the last. interval: MCUs between two restarts, or 0
    shape: lines of MCUs, MCUs in one. tables: rows of Huffman codes, one behind the other
    layout uint64 [blocks of an MCU, 5]: the first one's place among the coefficients, how far from it the next MCU's is,
    component, where the rows of its DC and of its AC code begin
    lines [lines of blocks of an MCU, 4]: the first block's place, component, its lines in an MCU, which of them this is
    stops [components]: `left` before the first coefficient that is not kept
    places uint64 [components * 64], from the zigzag's last on: how far each coefficient is from the first one of its block
    factors: of each component, float32 [N * N], what a coefficient is multiplied with
    weights: of each component, float32 [N, N or N + 1], how much a sample has of each frequency
    planes: of each component, uint8 [N, rows, blocks across]: sample x of block b in row y is at [x, y, b]
    room: to work in: coefficients int16, half and mixed float32, before int64 [components]
    """
    coefficients, half, mixed, before = room
    end = U(starts[-1] + WORD)
    bits, left, at, restarts, due = ZERO, 0, ZERO, 0, interval if interval else -1
    before[:] = 0
    for line in range(shape[0]):
        coefficients[:] = 0
        for mcu in range(shape[1]):
            if due == 0:
                if restarts + 1 >= len(starts) or not _is_used_up(left, at, starts[restarts]):
                    return False
                bits, left, at, due = ZERO, 0, U(starts[restarts]), interval
                before[:] = 0
                restarts += 1
            due -= 1
            for number in range(U(len(layout))):
                component, start = layout[number, 2], layout[number, 0] + U(mcu) * layout[number, 1]
                if at > end:
                    return False
                bits, left, at, before[component] = _block(
                    stream, bits, left, at, layout[number, 3], layout[number, 4], tables, stops[component], places,
                    component * U(BLOCK), coefficients, start, before[component],
                )  # fmt: skip
                if left < 0:
                    return False
        for number in range(len(lines)):
            begin, component, down, place = lines[number]
            row = (line * down + place) * len(weights[component])
            _draw(coefficients, begin, factors[component], weights[component], half, mixed, planes[component], row)
    return restarts + 1 == len(starts) and _is_used_up(left, at, starts[restarts])
