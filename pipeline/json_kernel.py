"""JSON in bytes: the steps that compiled readers of records are made of.

in      bytes, where to start, where they end; hostile
out     where a value, a string or a key ends, or BROKEN
law     what is not BROKEN is JSON, and ends where a full parser says. BROKEN may also be what is only unusual: numbers with an
        exponent or of more than MAX_DIGITS digits, values deeper than MAX_DEPTH; `copy`: half surrogates, broken UTF-8
cost    linear in the bytes
source  RFC 8259 (JSON), RFC 3629 (UTF-8)
"""

import numpy as np

from pipeline.compiled import inner

QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
BRACE, BRACE_END, BRACKET, BRACKET_END = 123, 125, 91, 93
MAX_DEPTH = 60
MAX_DIGITS = 300
BROKEN = -1

# What stands in a string: 0 passes, 1 a quote, 2 a backslash, 3 a control character
_string_class = np.zeros(256, np.uint8)
_string_class[:32] = 3
_string_class[QUOTE], _string_class[BACKSLASH] = 1, 2
# What an escape means: the character, 255 for u, 0 for none
_escape = np.zeros(256, np.uint8)
for _name, _meaning in zip(b'"\\/bfnrtu', b'"\\/\b\f\n\r\t\xff', strict=True):
    _escape[_name] = _meaning
_hex = np.full(256, 255, np.uint8)
for _digit in b"0123456789abcdefABCDEF":
    _hex[_digit] = int(chr(_digit), 16)
_literals = np.array([list(b"true "), list(b"false"), list(b"null ")], np.uint8)


@inner
def space(data, position, end) -> int:
    """The position after white space."""
    while position < end:
        byte = data[position]
        if byte > 32 or (byte != 32 and byte != 10 and byte != 13 and byte != 9):
            break
        position += 1
    return position


@inner
def string(data, position, end) -> tuple[int, bool]:
    """(position after the string's closing quote or BROKEN, whether it has escapes); `position`: after its opening quote."""
    escaped = False
    while position < end:
        kind = _string_class[data[position]]
        if kind == 0:
            position += 1
        elif kind == 1:
            return position + 1, escaped
        elif kind == 3 or position + 1 >= end:
            return BROKEN, escaped
        else:
            escaped = True
            meaning = _escape[data[position + 1]]
            position += 2
            if meaning == 0:
                return BROKEN, escaped
            if meaning == 255:
                if position + 4 > end:
                    return BROKEN, escaped
                for _ in range(4):
                    if _hex[data[position]] == 255:
                        return BROKEN, escaped
                    position += 1
    return BROKEN, escaped


@inner
def _digits(data, position, end):
    """The position after a run of at least one and at most MAX_DIGITS digits, or BROKEN."""
    start = position
    while position < end and 48 <= data[position] <= 57:
        position += 1
    return position if 0 < position - start <= MAX_DIGITS else BROKEN


@inner
def _scalar(data, position, end):
    """The position after a number, true, false or null, or BROKEN. An exponent counts as broken: what is wanted has none."""
    for literal in range(len(_literals)):
        size = 5 if literal == 1 else 4
        same = position + size <= end
        for i in range(size):
            same = same and data[position + i] == _literals[literal, i]
        if same:
            return position + size
    if position < end and data[position] == 45:
        position += 1
    start = position
    position = _digits(data, position, end)
    if position == BROKEN or (data[start] == 48 and position - start > 1):
        return BROKEN
    if position < end and data[position] == 46:
        position = _digits(data, position + 1, end)
    return position


@inner
def skip(data, position, end) -> int:
    """The position after any JSON value, which is checked, or BROKEN."""
    is_object = np.zeros(MAX_DEPTH, np.bool_)
    depth = 0
    while True:  # at a value
        position = space(data, position, end)
        if position >= end:
            return BROKEN
        byte = data[position]
        opened = False
        if byte == QUOTE:
            position, _ = string(data, position + 1, end)
        elif byte == BRACE or byte == BRACKET:  # noqa: SIM109
            if depth == MAX_DEPTH:
                return BROKEN
            is_object[depth] = byte == BRACE
            depth += 1
            position = space(data, position + 1, end)
            if position < end and data[position] == (BRACE_END if byte == BRACE else BRACKET_END):
                depth -= 1
                position += 1
            else:
                opened = True
        else:
            position = _scalar(data, position, end)
        if position == BROKEN:
            return BROKEN
        while not opened:  # after a value
            if depth == 0:
                return position
            position = space(data, position, end)
            if position >= end:
                return BROKEN
            byte = data[position]
            position += 1
            if byte == COMMA:
                opened = True
            elif byte == (BRACE_END if is_object[depth - 1] else BRACKET_END):
                depth -= 1
            else:
                return BROKEN
        if is_object[depth - 1]:
            position, _, _, _ = key(data, position, end)
            if position == BROKEN:
                return BROKEN


@inner
def key(data, position, end) -> tuple[int, int, int, bool]:
    """(position after a key and its colon or BROKEN, where the key starts and ends, whether it has escapes)."""
    position = space(data, position, end)
    if position >= end or data[position] != QUOTE:
        return BROKEN, 0, 0, False
    start = position + 1
    position, escaped = string(data, start, end)
    if position == BROKEN:
        return BROKEN, 0, 0, False
    last = position - 1
    position = space(data, position, end)
    if position >= end or data[position] != COLON:
        return BROKEN, 0, 0, False
    return position + 1, start, last, escaped


@inner
def _put(code, out, size):
    """Write a code point as UTF-8; the new size."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | code >> 6
        out[size + 1] = 0x80 | code & 0x3F
        return size + 2
    if code < 0x10000:
        out[size] = 0xE0 | code >> 12
        out[size + 1] = 0x80 | code >> 6 & 0x3F
        out[size + 2] = 0x80 | code & 0x3F
        return size + 3
    out[size] = 0xF0 | code >> 18
    out[size + 1] = 0x80 | code >> 12 & 0x3F
    out[size + 2] = 0x80 | code >> 6 & 0x3F
    out[size + 3] = 0x80 | code & 0x3F
    return size + 4


@inner
def _hex4(data, position):
    """The number that four hex digits write."""
    code = 0
    for i in range(4):
        code = code << 4 | np.int64(_hex[data[position + i]])
    return code


@inner
def _sequence(data, position, end):
    """The length of the UTF-8 sequence of two to four bytes that starts here, or 0 where it is none."""
    first = data[position]
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC2 or first > 0xF4 or position + size > end:
        return 0
    for i in range(1, size):
        if data[position + i] & 0xC0 != 0x80:
            return 0
    second = data[position + 1]
    if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
        return 0
    if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
        return 0
    return size


@inner
def copy(data, position, end, out, size) -> int:
    """Write the characters of the string data[position:end]; the new size, or BROKEN: broken UTF-8, half a surrogate pair."""
    while position < end:
        byte = data[position]
        if byte == BACKSLASH:
            meaning = _escape[data[position + 1]]
            position += 2
            if meaning != 255:
                out[size] = meaning
                size += 1
                continue
            code = _hex4(data, position)
            position += 4
            if 0xD800 <= code < 0xE000:
                if code >= 0xDC00 or position + 6 > end or data[position] != BACKSLASH or data[position + 1] != 117:
                    return BROKEN
                low = _hex4(data, position + 2)
                if not 0xDC00 <= low < 0xE000:
                    return BROKEN
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                position += 6
            size = _put(code, out, size)
        elif byte < 0x80:
            out[size] = byte
            position, size = position + 1, size + 1
        else:
            length = _sequence(data, position, end)
            if length == 0:
                return BROKEN
            for i in range(length):
                out[size + i] = data[position + i]
            position, size = position + length, size + length
    return size
