"""One definition of a word, for queries and texts alike.

law     a query occurs in a text iff the words of the query stand side by side among the words of the text; equivalently
        iff " " + query's words joined by a space + " " is a piece of " " + text's words joined by a space + " "
law     wit: normalising twice changes nothing; words are never empty
modes   wit: NFKC and case fold; punctuation, symbols, spaces and control characters are boundaries; a character of a
        script that is written without spaces is a word; characters that show nothing (soft hyphen, joiners, variation
        selectors) are taken out
        metaclip: MetaCLIP's spacing rules. Case counts; only , . ; : ? ! ` are set apart, tab and line ends are spaces,
        queries are taken as they are. Two spaces have an empty word between them.
tokens  what a user may wonder about (mode wit; the words of a query and of a text are the same):
            (dog) "dog" dog, #dog       dog             dog-house dog/house dog_house   dog house
            St. Louis                   st louis        U.S. U.S.A.                     u s, u s a (not us, usa)
            don't don’t                 don t           rock'n'roll                     rock n roll
            C++ C# C                    c               $5.99 5,000                     5 99, 5 000
            Straße STRASSE              strasse         ΟΔΟΣ οδος                       οδοσ
            İstanbul                    i̇stanbul        ISTANBUL istanbul               istanbul
            ﬁne ㎏ ½                    fine, kg, 1 2   café, e and accent or one       café
            東京タワー                  東 京 タ ワ ー  I ❤️ NY                          i ny
        so a query that is only punctuation or pictures has no word, and is never found
cost    ASCII text takes a short path, about 2 us a sentence, and the matcher reads it without any; text whose characters
        do not join takes a third of the time of the rest
source  MetaCLIP, "Sub-string Matching"; Unicode 3.13 D146 (compatibility caseless matching)
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Scripts that are written without spaces between words: the range of code points of each, both ends included.
NO_SPACES = (
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # ideographic iteration mark, zero
    (0x3021, 0x30FF),  # Hangzhou numerals, Hiragana, Katakana
    (0x3100, 0x312F),  # Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo and Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Myanmar extension
    (0xAA60, 0xAADF),  # Myanmar extension, Tai Viet
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x1B000, 0x1B16F),  # Kana supplements
    (0x20000, 0x3FFFF),  # Han extensions
)
ZERO_WIDTH_SPACE = 0x200B
METACLIP_MARKS = ",.;:?!`"


def _is_invisible(code: int) -> bool:
    if code == ZERO_WIDTH_SPACE:
        return False
    is_selector = 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF
    return is_selector or code == 0x034F or unicodedata.category(chr(code)) == "Cf"


class _Visible(dict[int, int | str | None]):
    """Table for str.translate, filled as characters turn up: takes out what shows nothing."""

    def __missing__(self, code: int) -> int | str | None:
        result: int | str | None = None if _is_invisible(code) else code
        if unicodedata.normalize("NFKC", chr(code)).startswith(" "):
            result = " "  # an accent that stands alone (U+00B4): NFKC would lay it on the next letter
        self[code] = result
        return result


class _Boundaries(dict[int, int | str]):
    """Table for str.translate, filled as characters turn up: boundaries to spaces, characters that are words set apart."""

    def __missing__(self, code: int) -> int | str:
        character = chr(code)
        if unicodedata.category(character)[0] in "PSZC":
            result: int | str = " "
        elif any(first <= code <= last for first, last in NO_SPACES):
            result = f" {character} "
        else:
            result = code
        self[code] = result
        return result


class _Alone(dict[int, str]):
    """Table for str.translate, filled as characters turn up: the normal form of a character that no neighbour changes.

    Only a mark, or a vowel or a final of Hangul, is ever put together with what stands before it (tested against Unicode's
    own list); where one of the character's forms starts with such a letter, the table says JOINS.
    """

    def __missing__(self, code: int) -> str:
        forms = [chr(code).translate(_visible)]
        forms.append(unicodedata.normalize("NFD", forms[0]).casefold())
        forms.append(unicodedata.normalize("NFKC", forms[1]).casefold())
        forms.append(unicodedata.normalize("NFKC", forms[2]))
        decomposed = [unicodedata.normalize("NFKD", form)[:1] for form in forms]
        result = JOINS if any(map(is_joining, decomposed)) else forms[-1].translate(_boundaries)
        self[code] = result
        return result


def is_joining(character: str) -> bool:
    """True if the character, or none, may be put together with the one before it by a canonical composition."""
    return character != "" and (unicodedata.category(character)[0] == "M" or "\u1161" <= character <= "\u11ff")


JOINS = "\ud800"  # no normal form holds it: it is a boundary
_visible, _boundaries, _alone = _Visible(), _Boundaries(), _Alone()
_ascii = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
_metaclip = {ord(mark): f" {mark} " for mark in METACLIP_MARKS} | {ord(space): " " for space in "\t\n\r"}


def wit_words(text: str) -> list[str]:
    """The words of a text or a query, in order."""
    if text.isascii():
        return text.translate(_ascii).split()
    alone = text.translate(_alone)
    return alone.split() if JOINS not in alone else _joined_words(text)


def _joined_words(text: str) -> list[str]:
    text = unicodedata.normalize("NFD", text.translate(_visible)).casefold()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text.translate(_boundaries).split()


def metaclip_words(text: str) -> list[str]:
    """The words of a text by MetaCLIP's rules; an empty word between two spaces."""
    return text.translate(_metaclip).split(" ")


def metaclip_query_words(query: str) -> list[str]:
    """The words of a query by MetaCLIP's rules: queries are not spaced, so one that holds a mark rarely matches."""
    return query.split(" ")


MARK = 0xFF  # the letter of a byte that is a word of its own; no byte of UTF-8 is this one
LETTERS = {  # each byte's letter; a space for boundaries. What is not ASCII is normal already, see prepared
    "wit": np.array([*_ascii.encode(), *range(128, 256)], np.uint8),
    "metaclip": np.array(
        [MARK if chr(i) in METACLIP_MARKS else ord(" ") if chr(i) in "\t\n\r" else i for i in range(256)], np.uint8
    ),
}
for _letters in LETTERS.values():
    _letters.flags.writeable = False
TEXT_WORDS: dict[str, Callable[[str], list[str]]] = {"wit": wit_words, "metaclip": metaclip_words}
QUERY_WORDS: dict[str, Callable[[str], list[str]]] = {"wit": wit_words, "metaclip": metaclip_query_words}


def wit(text: str) -> str:
    """The normal form of a text or a query: its words, joined by one space."""
    return " ".join(wit_words(text))


def prepared(texts: pa.Array, normalizer: str) -> pa.Array:
    """The texts, ready to be read byte by byte with LETTERS.  [n] string -> [n] string

    ASCII texts stay as they are. Mode wit puts the normal form in the place of the others.
    """
    if normalizer == "metaclip":
        return texts
    other = pc.invert(pc.string_is_ascii(texts))
    if not pc.any(other).as_py():
        return texts
    normal = [wit(text.decode("utf-8", "replace")) for text in texts.filter(other).cast(pa.binary()).to_pylist()]
    return pc.replace_with_mask(texts, other, pa.array(normal, pa.string()))
