"""The image links of WAT records, found in their bytes: one pass over the JSON that keeps what is wanted and checks the rest.

in      blocks of records laid end to end, hostile
out     for each image link its record, URL, alt and title, entities and all but without JSON's escapes, as pieces of one buffer
law     what `scan` gives is what a full JSON parser gives, key by key. Where the two might differ it gives the record back:
        broken or unusual JSON (numbers with an exponent, NaN, deep nesting, a key twice), half surrogates or broken UTF-8 in
        what is kept, another HTTP status than 200
cost    about 1 ns a byte; the buffer is as long as the blocks
source  RFC 8259 (JSON), RFC 3629 (UTF-8)
"""

import numpy as np

from pipeline.compiled import compiled, inner

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

# The keys on the way to what is wanted: context, key, and the context or value below it
KEYS = (
    b"Envelope", b"Payload-Metadata", b"HTTP-Response-Metadata", b"Response-Message", b"HTML-Metadata", b"Status", b"Head",
    b"Links", b"Base", b"path", b"url", b"alt", b"title", b"IMG@/", b"srcset", b"200", b"true", b"false", b"null",
)  # fmt: skip
_keys = np.frombuffer(b"".join(KEYS), np.uint8)
_key_starts = np.cumsum([0, *map(len, KEYS)])
(
    ENVELOPE,
    PAYLOAD,
    RESPONSE,
    MESSAGE,
    HTML,
    STATUS,
    HEAD,
    LINKS,
    BASE,
    PATH,
    URL,
    ALT,
    TITLE,
    IMAGE,
    SRCSET,
    OK,
    TRUE,
    FALSE,
    NULL,
) = range(19)
ROOT = 19


@inner
def _is(data, start, end, key):
    """True where data[start:end] is KEYS[key]."""
    first, last = _key_starts[key], _key_starts[key + 1]
    if end - start != last - first:
        return False
    for i in range(last - first):  # noqa: SIM110
        if data[start + i] != _keys[first + i]:
            return False
    return True


@inner
def _space(data, position, end):
    """The position after white space."""
    while position < end:
        byte = data[position]
        if byte > 32 or (byte != 32 and byte != 10 and byte != 13 and byte != 9):
            break
        position += 1
    return position


@inner
def _string(data, position, end):
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
    for literal in (TRUE, FALSE, NULL):
        size = _key_starts[literal + 1] - _key_starts[literal]
        if position + size <= end and _is(data, position, position + size, literal):
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
def _skip(data, position, end):
    """The position after any JSON value, which is checked, or BROKEN."""
    is_object = np.zeros(MAX_DEPTH, np.bool_)
    depth = 0
    while True:  # at a value
        position = _space(data, position, end)
        if position >= end:
            return BROKEN
        byte = data[position]
        opened = False
        if byte == QUOTE:
            position, _ = _string(data, position + 1, end)
        elif byte == BRACE or byte == BRACKET:  # noqa: SIM109
            if depth == MAX_DEPTH:
                return BROKEN
            is_object[depth] = byte == BRACE
            depth += 1
            position = _space(data, position + 1, end)
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
            position = _space(data, position, end)
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
            position, _, _, _ = _key(data, position, end)
            if position == BROKEN:
                return BROKEN


@inner
def _key(data, position, end):
    """(position after a key and its colon or BROKEN, where the key starts and ends, whether it has escapes)."""
    position = _space(data, position, end)
    if position >= end or data[position] != QUOTE:
        return BROKEN, 0, 0, False
    start = position + 1
    position, escaped = _string(data, start, end)
    if position == BROKEN:
        return BROKEN, 0, 0, False
    last = position - 1
    position = _space(data, position, end)
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
def _copy(data, position, end, out, size):
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


@inner
def _link(data, position, end, spans):
    """Read a link object; (position after it or BROKEN, 1 an image link, 2 one of srcset, 0 none). `position`: after its brace.

    spans: [4, 2], start and end of path, url, alt, title; -1: not a string, not there.
    """
    spans[:] = -1
    seen = 0
    path_escaped = False
    position = _space(data, position, end)
    if position < end and data[position] == BRACE_END:
        return position + 1, 0
    while True:
        position, start, last, escaped = _key(data, position, end)
        if position == BROKEN or escaped:
            return BROKEN, 0
        wanted = -1
        for number in range(4):
            if _is(data, start, last, PATH + number):
                wanted = number
        if wanted >= 0:
            if seen & 1 << wanted:
                return BROKEN, 0
            seen |= 1 << wanted
        position = _space(data, position, end)
        if wanted >= 0 and position < end and data[position] == QUOTE:
            start = position + 1
            position, escaped = _string(data, start, end)
            spans[wanted, 0], spans[wanted, 1] = start, position - 1
            path_escaped |= escaped and wanted == 0
        else:
            position = _skip(data, position, end)
        if position == BROKEN or path_escaped:
            return BROKEN, 0
        position = _space(data, position, end)
        if position >= end:
            return BROKEN, 0
        byte = data[position]
        position += 1
        if byte == BRACE_END:
            break
        if byte != COMMA:
            return BROKEN, 0
    first, last = spans[0, 0], spans[0, 1]
    if first < 0 or last - first < 5 or not _is(data, first, first + 5, IMAGE):
        return position, 0
    return position, 2 if last - first >= 6 and _is(data, last - 6, last, SRCSET) else 1


@inner
def _links(data, position, end, record, size, num_links, out, offsets, records):
    """Read the array of links; (position after it or BROKEN, size of `out`, number of links). `position`: after its bracket."""
    spans = np.empty((4, 2), np.int64)
    position = _space(data, position, end)
    if position < end and data[position] == BRACKET_END:
        return position + 1, size, num_links
    while True:
        position = _space(data, position, end)
        kind = 0
        if position < end and data[position] == BRACE:
            position, kind = _link(data, position + 1, end, spans)
        else:
            position = _skip(data, position, end)
        if position == BROKEN:
            return BROKEN, size, num_links
        if kind:
            for piece in range(1, 4):
                if spans[piece, 0] >= 0:
                    size = _copy(data, spans[piece, 0], spans[piece, 1], out, size)
                    if size == BROKEN:
                        return BROKEN, size, num_links
                offsets[3 * num_links + piece] = size
            records[num_links] = 2 * record + (kind - 1)
            num_links += 1
        position = _space(data, position, end)
        if position >= end:
            return BROKEN, size, num_links
        byte = data[position]
        position += 1
        if byte == BRACKET_END:
            return position, size, num_links
        if byte != COMMA:
            return BROKEN, size, num_links


@inner
def _below(context, data, start, end):
    """What lies under a key of an object on the way to the links: a number of KEYS, or -1 where it is not wanted."""
    if context == ROOT:
        return ENVELOPE if _is(data, start, end, ENVELOPE) else -1
    if context == ENVELOPE:
        return PAYLOAD if _is(data, start, end, PAYLOAD) else -1
    if context == PAYLOAD:
        return RESPONSE if _is(data, start, end, RESPONSE) else -1
    if context == RESPONSE:
        return MESSAGE if _is(data, start, end, MESSAGE) else HTML if _is(data, start, end, HTML) else -1
    if context == HTML:
        return HEAD if _is(data, start, end, HEAD) else LINKS if _is(data, start, end, LINKS) else -1
    if context == MESSAGE:
        return STATUS if _is(data, start, end, STATUS) else -1
    return BASE if _is(data, start, end, BASE) else -1


@inner
def _record(data, position, end, record, size, num_links, out, offsets, records, bases):
    """Read one record; (True where it is understood, size of `out`, number of links)."""
    contexts = np.empty(8, np.int64)
    depth = seen = 0
    bases[record, :] = -1
    position = _space(data, position, end)
    if position >= end or data[position] != BRACE:
        return False, size, num_links
    contexts[0] = ROOT
    position += 1
    fresh = True  # at the start of an object
    while True:
        position = _space(data, position, end)
        if fresh and position < end and data[position] == BRACE_END:
            position += 1
        else:
            position, start, last, escaped = _key(data, position, end)
            if position == BROKEN or escaped:
                return False, size, num_links
            wanted = _below(contexts[depth], data, start, last)
            if wanted >= 0:
                if seen & 1 << wanted:
                    return False, size, num_links
                seen |= 1 << wanted
            position = _space(data, position, end)
            first = data[position] if position < end else np.uint8(0)
            if first == BRACE and wanted >= 0 and wanted != STATUS and wanted != BASE and wanted != LINKS:
                depth += 1
                contexts[depth] = wanted
                position, fresh = position + 1, True
                continue
            start = position
            if wanted == LINKS and first == BRACKET:
                position, size, num_links = _links(data, position + 1, end, record, size, num_links, out, offsets, records)
            else:
                position = _skip(data, position, end)
            if position == BROKEN or (wanted == STATUS and (first != QUOTE or not _is(data, start + 1, position - 1, OK))):
                return False, size, num_links
            if wanted == BASE and first == QUOTE:
                bases[record, 0], bases[record, 1] = start, position
            depth += 1
        # after a value: to the next key, or out of objects that end
        while True:
            depth -= 1
            position = _space(data, position, end)
            if depth < 0:
                return position >= end, size, num_links
            if position >= end:
                return False, size, num_links
            byte = data[position]
            position += 1
            if byte == COMMA:
                fresh = False
                break
            if byte != BRACE_END:
                return False, size, num_links


@compiled
def scan(data, starts, out, offsets, records, bases, understood):
    """Find the image links of all records; the number of links and of bytes of `out` that are used.

    data        [bytes] uint8, the blocks end to end; starts: [records + 1], where each begins
    out         [bytes] uint8, gets URL, alt, title of each link, one after the other; offsets: [3 * links + 1], where they end
    records     [links], gets twice the number of the link's record, plus 1 where its URL is a srcset
    bases       [records, 2], gets where the JSON string of Head.Base starts and ends, or -1
    understood  [records], gets False for a record of which nothing is given: it is for a full parser
    """
    size = num_links = 0
    offsets[0] = 0
    for record in range(len(starts) - 1):
        good, new_size, new_links = _record(
            data, starts[record], starts[record + 1], record, size, num_links, out, offsets, records, bases
        )
        understood[record] = good
        if good:
            size, num_links = new_size, new_links
    return num_links, size
