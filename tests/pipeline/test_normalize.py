"""The normaliser: examples a person can check, and its laws over every character."""

import random
import sys
import unicodedata

import pyarrow as pa
import pytest

from pipeline import normalize

EXAMPLES = {
    "(dog)": "dog",
    "dog-house, dog/cat": "dog house dog cat",
    "St. Louis U.S.": "st louis u s",
    "Straße CAFÉ cafe\u0301": "strasse café café",
    "ＦＵＬＬ ｗｉｄｔｈ ﬁne": "full width fine",
    "don´t don't don’t": "don t don t don t",
    "co\u00adop\u200berate ki\u200dwi": "coop erate kiwi",
    "a 猫が好き": "a 猫 が 好 き",
    "ผ้า": "ผ ้ า",
    "한국어 text": "한국어 text",
    "I ❤️ NY\t\n\x00!": "i ny",
    "½ ① 2²": "1 2 1 22",
    "...": "",
    "": "",
}


@pytest.mark.parametrize(("text", "normal"), EXAMPLES.items())
def test_the_normal_form_is_what_a_person_expects(text: str, normal: str) -> None:
    assert normalize.wit(text) == normal


def test_normalising_twice_changes_nothing_for_any_character() -> None:
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Cn", "Co", "Cs"):
            continue
        once = normalize.wit(f"a{chr(code)}B")
        assert normalize.wit(once) == once, hex(code)


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


@pytest.mark.parametrize("normalizer", ["wit", "metaclip"])
def test_whole_columns_are_cut_as_single_texts_are(normalizer: str) -> None:
    chance = random.Random(1)
    letters = "ab A.,!?-'´ \t\n\x00éß猫กﬁ½\u00ad"
    texts = ["", " ", ".", *EXAMPLES, *("".join(chance.choices(letters, k=chance.randrange(20))) for _ in range(500))]
    spaced = normalize.spaced(pa.array(texts, pa.string()), normalizer).to_pylist()
    assert all(text.endswith(" ") for text in spaced)
    words = [text[:-1].split(" ") for text in spaced]
    if not normalize.EMPTY_WORDS[normalizer]:
        words = [[word for word in line if word] for line in words]
    assert words == [normalize.TEXT_WORDS[normalizer](text) for text in texts]
