"""Texts: cleaned once.

in      texts as attributes hold them, hostile
out     the cleaned texts
law     clean(clean(text)) == clean(text); the short cuts give what clean_fully gives; `clean_all` of a column is `clean` of
        the first MAX_RAW_CHARS of each of its texts
cost    a text of plain ASCII is copied; the others go through ftfy, which is most of the time of a text that needs mending
source  ftfy for broken encodings; Unicode TR15 for NFC
"""

import html
import re
import unicodedata

import ftfy
import numpy as np
import pyarrow as pa
from ftfy.badness import is_bad

from pipeline import strings
from pipeline.compiled import compiled

MAX_RAW_CHARS = 10_000  # more of an attribute is not looked at
MAX_PASSES = 10  # of cleaning; a text that still changes is built to do so
NESTED = re.compile(r"&(?:(?:amp|#0{0,9}38|#x0{0,9}26);?)+", re.I)  # "&amp;amp;amp;" in one step: 5,000 passes take seconds
PLAIN = re.compile(r"[\t\n\r -~]*")  # printable ASCII: nothing for ftfy or NFC to do, once no entity is left
ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")  # what ftfy takes for an entity, which is more than html.unescape does
# Letters that ftfy leaves alone wherever they stand: no encoding's bytes look like them, and none has another width.
QUIET = re.compile(r"[\t\n\r -~\u0590-\u06ff\u0900-\u0dff\u0e00-\u0eff\u3001-\u30fe\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]*")
# What ftfy leaves alone unless it looks like a broken encoding (is_bad), which it is asked: letters of more scripts.
USUAL = re.compile(
    r"[\t\n\r -~¡-¨ª-¬®-ıĴ-ňŊ-ǃǍ-ǰǴ-ʯͰ-׿\u0600-\u06ff\u0900-\u0eff\u1e00-\u1fff–—‐…•€™\u3001-\u30fe\u3400-\u9fff\uac00-\ud7a3]*"
)

_is_plain = np.zeros(256, np.bool_)  # of PLAIN without "&"
_is_plain[32:127] = True
_is_plain[[9, 10, 13]] = True
_is_plain[ord("&")] = False


def _clean_once(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", ftfy.fix_text(html.unescape(NESTED.sub("&amp;", text)))).split())


def clean_fully(text: str) -> str:
    """Cleaning without short cuts; what `clean` must agree with."""
    for _ in range(MAX_PASSES):
        cleaned = _clean_once(text)
        if cleaned == text:
            return text
        text = cleaned
    return ""


def _is_clean(text: str) -> bool:
    """True for texts of which cheap signs say that at most their white space has to change, which may bring up new signs."""
    if "&" in text and (ENTITY.search(text) or html.unescape(NESTED.sub("&amp;", text)) != text):
        return False
    if PLAIN.fullmatch(text):
        return True
    if not unicodedata.is_normalized("NFC", text):
        return False
    return bool(QUIET.fullmatch(text)) or (bool(USUAL.fullmatch(text)) and not is_bad(text))


def clean(text: str) -> str:
    """Entities resolved, broken encodings mended (ftfy), NFC, every run of white space one space, stripped.

    Entities that were escaped twice are resolved too: the steps repeat until nothing changes.
    """
    for candidate in (text, html.unescape(NESTED.sub("&amp;", text))) if "&" in text else (text,):
        if _is_clean(candidate):
            collapsed = " ".join(candidate.split())
            if collapsed == candidate or _is_clean(collapsed):  # "Ã", a tab, a letter: broken only once the tab is a space
                return collapsed
    return clean_fully(text)


@compiled
def _collapse(data, offsets, out, ends, others):
    """Write the plain ASCII texts with white space collapsed; the number of others, whose places are noted."""
    size = num_others = 0
    for i in range(len(offsets) - 1):
        start, size_before, space = offsets[i], size, True
        plain = True
        for position in range(start, min(offsets[i + 1], start + MAX_RAW_CHARS)):
            byte = data[position]
            if not _is_plain[byte]:
                plain = False
                break
            if byte <= 32:
                if not space:
                    out[size] = 32
                    size += 1
                space = True
            else:
                out[size] = byte
                size += 1
                space = False
        if not plain:
            size = size_before
            others[num_others] = i
            num_others += 1
        elif space and size > size_before:
            size -= 1
        ends[i + 1] = size
    return num_others


def clean_all(texts: pa.StringArray) -> pa.StringArray:
    """The first MAX_RAW_CHARS of each text, cleaned; equal ones once.  [n] -> [n]"""
    data, offsets = strings.views(texts)
    out, ends, others = np.empty(len(data), np.uint8), np.zeros(len(offsets), np.int64), np.empty(len(offsets), np.int64)
    num_others = _collapse(data, offsets, out, ends, others)
    places = others[:num_others]
    raw = strings.at(texts, places)
    cleaned = {text: strings.valid(clean(text[:MAX_RAW_CHARS])) for text in set(raw)}
    return strings.put(strings.from_views(out, ends), places, [cleaned[text] for text in raw])
