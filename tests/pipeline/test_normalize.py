"""The normaliser: examples a person can check, and its laws over every character."""

import random
import sys
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import normalize

CASES = settings(max_examples=300, derandomize=True, database=None, deadline=None)
EXAMPLES = {
    '(dog) "dog" dog, #dog': "dog dog dog dog",
    "dog-house, dog/cat dog_house": "dog house dog cat dog house",
    "St. Louis U.S. U.S.A. USA": "st louis u s u s a usa",
    "C++ C# C": "c c c",
    "$5.99 5,000 rock'n'roll": "5 99 5 000 rock n roll",
    "Straße STRASSE CAFÉ cafe\u0301": "strasse strasse café café",
    "ΟΔΟΣ οδος οδοσ": "οδοσ οδοσ οδοσ",
    "İstanbul ISTANBUL ısparta": "i\u0307stanbul istanbul ısparta",
    "ＦＵＬＬ ｗｉｄｔｈ ﬁne ㎏ Ⅷ": "full width fine kg viii",
    "don´t don't don’t": "don t don t don t",
    "co\u00adop\u200berate ki\u200dwi": "coop erate kiwi",
    "a 猫が好き 東京タワー ﾀﾞ": "a 猫 が 好 き 東 京 タ ワ ー ダ",
    "ผ้า ລາວ ខ្មែរ": "ผ ้ า ລ າ ວ ខ ្ ម ែ រ",
    "한국어 text \u1112\u1161\u11ab": "한국어 text 한",
    "हिन्दी नमस्ते": "हिन्दी नमस्ते",
    "I ❤️ NY\t\n\x00! 👩\u200d👩\u200d👧": "i ny",
    "½ ① 2²": "1 2 1 22",
    "a\ud800b": "a b",
    "...": "",
    "": "",
}


@pytest.mark.parametrize(("text", "normal"), EXAMPLES.items())
def test_the_normal_form_is_what_a_person_expects(text: str, normal: str) -> None:
    assert normalize.wit(text) == normal


def test_any_character_has_one_normal_form_which_is_normal() -> None:
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Cn", "Co", "Cs"):
            continue
        if code % 16 and (0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xD7A4 or code >= 0x20000):
            continue  # Han and Hangul: one is as the other
        text = f"a{chr(code)}B"
        once = normalize.wit(text)
        assert normalize.wit(once) == once, hex(code)
        assert once == " ".join(normalize._joined_words(text)), hex(code)


def test_only_what_is_said_to_join_is_ever_put_together_with_the_character_before_it() -> None:
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and parts[0][0] != "<":
            assert normalize.is_joining(chr(int(parts[1], 16))), hex(code)
        if unicodedata.combining(chr(code)):
            assert normalize.is_joining(chr(code)), hex(code)
    for syllable in range(0xAC00, 0xD7A4):
        assert all(map(normalize.is_joining, unicodedata.normalize("NFD", chr(syllable))[1:]))


@CASES
@given(st.text(st.characters() | st.sampled_from("e\u0301ç\u1112\u1161\u11ab한ｶﾞΣﬁ\u00ad\u0345"), max_size=12))
def test_the_path_of_characters_that_do_not_join_is_the_full_path(text: str) -> None:
    assert normalize.wit_words(text) == normalize._joined_words(text)


def test_words_of_any_characters_hold_no_boundary_and_are_normal() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        text = "".join(chr(chance.choice((chance.randrange(0x250), chance.randrange(0xD800)))) for _ in range(12))
        for word in normalize.wit_words(text):
            assert word
            assert not any(unicodedata.category(character)[0] in "PSZC" for character in word)
            assert normalize.wit(word) == word


def test_metaclip_sets_only_seven_marks_apart_and_keeps_case() -> None:
    assert normalize.metaclip_words("The dog,(cat)\tand `x`") == ["The", "dog", ",", "(cat)", "and", "", "`", "x", "`", ""]
    assert normalize.metaclip_query_words("St. Louis") == ["St.", "Louis"]


@CASES
@given(st.text(st.characters(), max_size=12))
def test_normalising_twice_changes_nothing_for_any_text(text: str) -> None:
    once = normalize.wit(text)
    assert normalize.wit(once) == once


@CASES
@given(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8), st.sampled_from(" .,-\n\0'"))
def test_a_boundary_keeps_what_stands_beside_it_apart(before: str, after: str, boundary: str) -> None:
    assert normalize.wit_words(before + boundary + after) == normalize.wit_words(before) + normalize.wit_words(after)


def test_the_short_path_of_ascii_is_the_full_path() -> None:
    characters = [chr(code) for code in range(128)]
    for first in characters:
        text = "".join(f"{first}{second}B " for second in characters)
        assert normalize.wit_words(text) == normalize._joined_words(text)


@pytest.mark.parametrize("normalizer", ["wit", "metaclip"])
def test_a_prepared_column_read_byte_by_byte_has_the_words_of_its_texts(normalizer: str) -> None:
    chance = random.Random(1)
    letters = "ab A.,!?-'´ \t\n\x00éß猫กﬁ½\u00ad"
    texts = ["", " ", ".", *EXAMPLES, *("".join(chance.choices(letters, k=chance.randrange(20))) for _ in range(500))]
    texts = [text for text in texts if "\ud800" not in text]  # Arrow's strings are UTF-8
    table = [bytes([letter]) for letter in normalize.LETTERS[normalizer]]
    marks = {i: b" " + bytes([i]) + b" " for i, letter in enumerate(table) if letter == b"\xff"}
    for text, row in zip(texts, normalize.prepared(pa.array(texts, pa.string()), normalizer).to_pylist(), strict=True):
        words = b"".join(marks[byte] if byte in marks else table[byte] for byte in row.encode()).decode().split(" ")
        assert [word for word in words if word or normalizer == "metaclip"] == normalize.TEXT_WORDS[normalizer](text)
