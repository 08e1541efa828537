"""URLs that are canonical already, or nearly: joined to their page without a URL parser.

in      URLs as pages write them, each with the canonical URL of its page's base
out     the canonical URLs of the plain ones; the places of the others, which are for ada
law     a URL that is taken here becomes what ada makes of it. Taken are: absolute URLs of a plain host and path; "//host/path";
        "/path"; "path". Not taken is whatever a rule of the standard might change: other schemes, capital letters in a host, a
        port, a user, an address, punycode, a segment that starts with a dot, an escaped dot, a fragment, bytes that are escaped
cost    linear in the bytes
source  WHATWG URL, section 4.4
"""

import numpy as np

from pipeline.compiled import compiled, inner

MAX_HOST_BYTES = 200
MAX_LABEL_BYTES = 63

# Bits of a byte: 1 may stand in a path as it is, 2 in a query, 4 small letter of a host, 8 digit, 16 hyphen of a host
_kinds = np.zeros(256, np.uint8)
for _byte in range(0x21, 0x7F):
    if chr(_byte) not in '"#<>?`{}^\\|':
        _kinds[_byte] |= 1
    if chr(_byte) not in "\"#<>'":
        _kinds[_byte] |= 2
    _kinds[_byte] |= 4 if chr(_byte).islower() else 8 if chr(_byte).isdigit() else 16 if chr(_byte) == "-" else 0


@inner
def _host(data, position, end):
    """Where a plain host that starts here ends, at the slash of its path; -1: not plain."""
    start = label = position
    puny = False
    first = True  # of the label
    while position < end and data[position] != 47:
        byte = data[position]
        if byte == 46:
            if first or position - label > MAX_LABEL_BYTES:
                return -1
            label, first = position + 1, True
        elif _kinds[byte] & 28:
            puny |= byte == 45 and position + 1 < end and data[position + 1] == 45  # xn-- and what may become it
            first = False
        else:
            return -1
        position += 1
    if position >= end or first or puny or position - label > MAX_LABEL_BYTES or position - start > MAX_HOST_BYTES:
        return -1
    return position if _kinds[data[label]] & 4 else -1  # a last label of digits is an address


@inner
def _path(data, position, end):
    """True where data[position:end] is a path, after its first slash, and perhaps a query, that stay as they are."""
    fresh = True  # at the start of a segment
    while position < end:
        byte = data[position]
        if byte == 63:
            position += 1
            while position < end:
                if not _kinds[data[position]] & 2:
                    return False
                position += 1
            return True
        if fresh and (byte == 46 or byte == 37):
            return False
        if not _kinds[byte] & 1:
            return False
        fresh = byte == 47
        position += 1
    return True


@inner
def _starts(data, position, end, prefix):
    """True where the bytes here are those of `prefix`."""
    if end - position < len(prefix):
        return False
    for i in range(len(prefix)):  # noqa: SIM110
        if data[position + i] != prefix[i]:
            return False
    return True


HTTP, HTTPS = np.frombuffer(b"http://", np.uint8), np.frombuffer(b"https://", np.uint8)


@inner
def _plain(data, position, end):
    """What of the base comes before the URL: 0 nothing, 1 its scheme, 2 its origin, 3 its folder; -1: not plain."""
    if position == end:
        return -1
    if data[position] == 47:
        if position + 1 < end and data[position + 1] == 47:
            path = _host(data, position + 2, end)
            return 1 if path >= 0 and _path(data, path + 1, end) else -1
        return 2 if _path(data, position + 1, end) else -1
    scheme = 7 if _starts(data, position, end, HTTP) else 8 if _starts(data, position, end, HTTPS) else 0
    if scheme:
        path = _host(data, position + scheme, end)
        return 0 if path >= 0 and _path(data, path + 1, end) else -1
    if data[position] == 63:
        return -1
    for i in range(position, end):
        if data[i] == 58:
            return -1
        if data[i] == 47 or data[i] == 63:
            break
    return 3 if _path(data, position, end) else -1


@compiled
def join(data, offsets, bases, base_data, base_offsets, cuts, max_bytes, out, ends, others) -> int:
    """Write the canonical URLs of the plain ones; how many others there are, whose places are noted.

    data, offsets   the URLs; bases: [n], which base is whose; base_data, base_offsets: the canonical URLs of the bases
    cuts            [bases, 4], 0 and where scheme, origin and folder of a base end; -1: a base that is no URL
    out, ends       [size], [n + 1]: the URLs one after the other; size is enough for every URL with its base
    """
    size = num_others = 0
    for i in range(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        kind = _plain(data, start, end)
        before = cuts[bases[i], kind] if kind >= 0 else -1
        if before < 0 or before + end - start > max_bytes:
            others[num_others] = i
            num_others += 1
        else:
            first = base_offsets[bases[i]]
            for position in range(before):
                out[size] = base_data[first + position]
                size += 1
            for position in range(start, end):
                out[size] = data[position]
                size += 1
        ends[i + 1] = size
    return num_others
