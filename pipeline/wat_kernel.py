"""The image links of WAT records, found in their bytes: one pass over the JSON that keeps what is wanted and checks the rest.

in      blocks of records laid end to end, hostile
out     for each image link its record, URL, alt and title, entities and all but without JSON's escapes, as pieces of one buffer
law     what `scan` gives is what a full JSON parser gives, key by key. Where the two might differ it gives the record back:
        broken or unusual JSON (numbers with an exponent, NaN, deep nesting, a key twice), half surrogates or broken UTF-8 in
        what is kept, another HTTP status than 200
cost    linear in the bytes; the buffer is as long as the blocks
source  ia-web-commons, as in pipeline/wat.py
"""

import numpy as np

from pipeline.compiled import compiled, inner
from pipeline.json_kernel import BRACE, BRACE_END, BRACKET, BRACKET_END, BROKEN, COMMA, QUOTE, copy, key, skip, space
from pipeline.json_kernel import string as read_string

# The keys on the way to what is wanted: context, key, and the context or value below it
KEYS = (
    b"Envelope", b"Payload-Metadata", b"HTTP-Response-Metadata", b"Response-Message", b"HTML-Metadata", b"Status", b"Head",
    b"Links", b"Base", b"path", b"url", b"alt", b"title", b"IMG@/", b"srcset", b"200",
)  # fmt: skip
_keys = np.frombuffer(b"".join(KEYS), np.uint8)
_key_starts = np.cumsum([0, *map(len, KEYS)])
ENVELOPE, PAYLOAD, RESPONSE, MESSAGE, HTML, STATUS, HEAD, LINKS = range(8)
BASE, PATH, URL, ALT, TITLE, IMAGE, SRCSET, OK, ROOT = range(8, 17)


@inner
def _is(data, start, end, number):
    """True where data[start:end] is KEYS[number]."""
    first, last = _key_starts[number], _key_starts[number + 1]
    if end - start != last - first:
        return False
    for i in range(last - first):  # noqa: SIM110
        if data[start + i] != _keys[first + i]:
            return False
    return True


@inner
def _link(data, position, end, spans):
    """Read a link object; (position after it or BROKEN, 1 an image link, 2 one of srcset, 0 none). `position`: after its brace.

    spans: [4, 2], start and end of path, url, alt, title; -1: not a string, not there.
    """
    spans[:] = -1
    seen = 0
    path_escaped = False
    position = space(data, position, end)
    if position < end and data[position] == BRACE_END:
        return position + 1, 0
    while True:
        position, start, last, escaped = key(data, position, end)
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
        position = space(data, position, end)
        if wanted >= 0 and position < end and data[position] == QUOTE:
            start = position + 1
            position, escaped = read_string(data, start, end)
            spans[wanted, 0], spans[wanted, 1] = start, position - 1
            path_escaped |= escaped and wanted == 0
        else:
            position = skip(data, position, end)
        if position == BROKEN or path_escaped:
            return BROKEN, 0
        position = space(data, position, end)
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
    position = space(data, position, end)
    if position < end and data[position] == BRACKET_END:
        return position + 1, size, num_links
    while True:
        position = space(data, position, end)
        kind = 0
        if position < end and data[position] == BRACE:
            position, kind = _link(data, position + 1, end, spans)
        else:
            position = skip(data, position, end)
        if position == BROKEN:
            return BROKEN, size, num_links
        if kind:
            for piece in range(1, 4):
                if spans[piece, 0] >= 0:
                    size = copy(data, spans[piece, 0], spans[piece, 1], out, size)
                    if size == BROKEN:
                        return BROKEN, size, num_links
                offsets[3 * num_links + piece] = size
            records[num_links] = 2 * record + (kind - 1)
            num_links += 1
        position = space(data, position, end)
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
    position = space(data, position, end)
    if position >= end or data[position] != BRACE:
        return False, size, num_links
    contexts[0] = ROOT
    position += 1
    fresh = True  # at the start of an object
    while True:
        position = space(data, position, end)
        if fresh and position < end and data[position] == BRACE_END:
            position += 1
        else:
            position, start, last, escaped = key(data, position, end)
            if position == BROKEN or escaped:
                return False, size, num_links
            wanted = _below(contexts[depth], data, start, last)
            if wanted >= 0:
                if seen & 1 << wanted:
                    return False, size, num_links
                seen |= 1 << wanted
            position = space(data, position, end)
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
                position = skip(data, position, end)
            if position == BROKEN or (wanted == STATUS and (first != QUOTE or not _is(data, start + 1, position - 1, OK))):
                return False, size, num_links
            if wanted == BASE and first == QUOTE:
                bases[record, 0], bases[record, 1] = start, position
            depth += 1
        # after a value: to the next key, or out of objects that end
        while True:
            depth -= 1
            position = space(data, position, end)
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
def scan(data, starts, out, offsets, records, bases, understood) -> tuple[int, int]:
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
