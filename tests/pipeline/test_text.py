"""pipeline/text.py: cleaning, the rules and their order, the language."""

import time

import numpy as np
import pyarrow as pa
import pytest

from pipeline import rules as rules_module
from pipeline import text
from pipeline.config import CrawlConfig
from pipeline.rules import Rules
from pipeline.text import clean, clean_all, clean_fully

ALPHABETS = (
    [chr(i) for i in range(32, 127)],
    ["&", "amp;", "lt;", "gt;", "#38;", "#x26;", "nbsp;", "quot;", "#0;", "#128;", "eacute;", " ", "a", "<", "b"],
    [chr(i) for i in [*range(0x00, 0x20), 0x7F, 0x85, 0xA0, 0xAD, 0x200B, 0x2028, 0x3000, 0xFEFF]] + list("ab &"),
    ["Ã", "©", "¨", "â", "€", "™", "œ", "\x9d", "Â", "é", "ñ", "Ð", "¿", "a", " "],
    ["e", "\u0301", "\u0308", "\u0327", "ﬁ", "Ａ", "ｶ", "\u212b", "\u2126", "각", "\u1100", "\u1161", "\u0958", " "],
    ["\ud83d", "\ude00", "\ud800", "😀", "a", " ", "\ufffd"],
)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules(CrawlConfig())


def random_texts(seed: int, alphabet: list[str]) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(alphabet, size=rng.integers(0, 30)).tolist()) for _ in range(60)]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  a  red\n\tbicycle ", "a red bicycle"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),  # escaped twice
        ("salt &#38; pepper&nbsp;mill", "salt & pepper mill"),
        ("caf&eacute;", "café"),
        ("CafÃ© sign", "Café sign"),  # UTF-8 read as windows-1252
        ("cafe\u0301", "café"),  # NFC
        ("a\u00a0\u3000b", "a b"),
        ("&nbsp;", ""),
        ("bro\x00ken \x07bell", "broken bell"),
        ("&" + "amp;" * 2400 + "lt;", "<"),
        ("&#38;AMP;#x26;ampamp;eacute;", "é"),
        ("Caf\u00c3\t \u732b", "Cafà \u732b"),  # looks like a broken encoding only once the white space is one space
        ("Caf\u00e9 &amp; Caf\u00c3\t \u732b", "Café & Cafà \u732b"),
    ],
)
def test_a_text_is_cleaned_as_a_person_would_read_it(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    "piece", ["amp;", "ampamp", "#38;", "&amp;#38;", "\u0301\u0323", "Ã\x83Â", "\x1b[", " \x00", "ÃƒÆ’Ã†â€™"]
)
def test_a_hostile_text_is_cleaned_in_little_time(piece: str) -> None:
    start = time.process_time()
    clean(("&" + piece * text.MAX_RAW_CHARS)[: text.MAX_RAW_CHARS])
    assert time.process_time() - start < 2


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=["ascii", "entities", "controls", "mojibake", "combining", "surrogates"])
@pytest.mark.parametrize("seed", range(4))
def test_cleaning_twice_is_cleaning_once(seed: int, alphabet: list[str]) -> None:
    for raw in random_texts(seed, alphabet):
        assert clean(clean(raw)) == clean(raw), repr(raw)


@pytest.mark.parametrize("seed", range(4))
def test_the_short_cut_for_plain_text_changes_nothing(seed: int) -> None:
    plain = [chr(i) for i in range(32, 127) if chr(i) != "&"] + ["\n", "\t", "\r"]
    for raw in random_texts(seed, plain):
        assert text.PLAIN.fullmatch(raw)
        assert clean(raw) == clean_fully(raw), repr(raw)


@pytest.mark.parametrize(
    ("cleaned", "reason"),
    [
        ("bike", "too_short"),
        ("logo", "too_short"),  # boilerplate too, but short comes first
        ("bikes", None),
        ("ab " * 334, "too_long"),
        ("1" * 1001, "too_long"),
        ("a red bicycle in a park " * 41 + "at ten a clock..", None),  # 1000 characters
        ("1234567", "no_letters"),
        ("+++ 100 +++", "no_letters"),
        ("..........", "no_letters"),  # before repeated_chars
        ("wooooooooow", "repeated_chars"),  # nine
        ("woooooooow", None),  # eight
        ("Iiiiiiiiiiii see", "repeated_chars"),
        ("image", "boilerplate"),
        ("Click To Enlarge", "boilerplate"),
        ("Loading...", "boilerplate"),
        ("Share on Facebook", "boilerplate"),
        ("IMG_1234.jpg", "boilerplate"),
        ("DSC00012.JPG", "boilerplate"),
        ("banner-2.png", "boilerplate"),
        ("IMG_20190412", "boilerplate"),
        ("click here to see a red bicycle", None),
        ("a photo of image stabilisers", None),
        ("red bicycle.jpg", None),  # says something
    ],
)
def test_each_rule_and_the_order_of_the_rules(rules: Rules, cleaned: str, reason: str | None) -> None:
    assert rules.reason(cleaned) == reason


ENGLISH = """a red bicycle icon on a white background
the of and to in is that it with as for was on
portrait of Johann Wolfgang von Goethe by Stieler
photo of San Juan de los Lagos cathedral in Mexico
Leonardo da Vinci Mona Lisa painting
Casa Bonita restaurant Denver Colorado exterior
Sagrada Familia Barcelona interior ceiling
Crème brûlée recipe step by step
pasta alla carbonara with pancetta
Samsung Galaxy S21 Ultra 5G 128GB Phantom Black
Hotel Villa del Sol pool area
Die Hard movie poster
cup leaf bug cube database server
me he we on an so a no do go
El Niño
Schadenfreude"""
OTHER = """Ein rotes Fahrrad steht vor dem alten Haus in der Stadt
Wir haben heute ein neues Angebot für alle unsere Kunden
Une belle maison blanche au bord de la mer avec un grand jardin
Nous avons visité le musée avec nos amis pendant les vacances
La casa blanca en la playa con vistas al mar y a la montaña
Los niños juegan en el parque con una pelota roja
Il cane dorme accanto al gatto sul divano del soggiorno
Красный велосипед
東京の夜景
صورة دراجة حمراء
Κόκκινο ποδήλατο
자전거 아이콘"""


@pytest.mark.parametrize("sentence", ENGLISH.splitlines())
def test_english_and_names_are_kept(rules: Rules, sentence: str) -> None:
    assert rules.reason(sentence) is None


@pytest.mark.parametrize("sentence", OTHER.splitlines())
def test_other_languages_and_scripts_are_dropped(rules: Rules, sentence: str) -> None:
    assert rules.reason(sentence) == "language"


@pytest.mark.parametrize("seed", range(5))
def test_no_list_of_function_words_is_foreign(rules: Rules, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = sorted(rules_module.FUNCTION_WORDS)
    for _ in range(100):
        assert not rules.is_foreign(" ".join(rng.choice(words, size=rng.integers(1, 14)).tolist()))


def test_the_majority_of_the_letters_decides_the_script(rules: Rules) -> None:
    assert rules.reason("Moscow Москва red") is None  # 9 Latin letters, 6 Cyrillic
    assert rules.reason("Мос Moscow Москва") == "language"  # 6 to 9


def test_another_language_may_be_the_wanted_one() -> None:
    german, russian = Rules(CrawlConfig(language="de")), Rules(CrawlConfig(language="ru"))
    assert german.reason("Wir haben heute ein neues Angebot für alle unsere Kunden") is None
    assert german.reason("We have a new offer for all of our customers today") == "language"
    assert russian.reason("Красный велосипед на белом фоне") is None
    assert russian.reason("a red bicycle on a white ground") == "language"


def test_an_empty_language_keeps_all_and_an_unknown_one_is_refused() -> None:
    assert Rules(CrawlConfig(language="")).reason("東京の夜景") is None
    with pytest.raises(ValueError, match=r"crawl: language must be .* found 'xx'"):
        Rules(CrawlConfig(language="xx"))


def test_letters_that_are_said_to_be_left_alone_are() -> None:
    codes = [code for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    usual = [chr(code) for code in codes if text.USUAL.fullmatch(chr(code))]
    assert len(usual) > 30_000
    for letter in usual[::7] + [letter for letter in usual if ord(letter) < 0x3400]:
        sample = f"a {letter} b"
        if text._is_clean(sample):
            assert clean_fully(sample) == " ".join(sample.split()), hex(ord(letter))


@pytest.mark.parametrize("seed", range(6))
def test_no_short_cut_changes_a_text_of_many_scripts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scripts = (
        "äöüßéèñçÃâ€™œÂ©¨°Ððşğıłżź абвгАБѐґ αβΑΩά אבשלום صورة हिन्दी ไทย 東京の夜景ー 자전거 ABC.,-'’“”–&<>\u00a0\u00ad\ufffdﬁＡ²½"
    )
    pieces = [*scripts, "&amp;", "&EACUTE;", "&lt", "&#228;"]
    for size in (3, 6, 12):
        for _ in range(150):
            raw = "".join(rng.choice(pieces, size=size).tolist())
            assert clean(raw) == clean_fully(raw), repr(raw)


@pytest.mark.parametrize("seed", range(3))
def test_a_column_is_cleaned_as_each_of_its_texts(seed: int) -> None:
    raw = [value.encode("utf-8", "replace").decode() for alphabet in ALPHABETS for value in random_texts(seed, alphabet)]
    raw += ["", " ", "\t a \n", "x" * 20_000, "é" * 20_000, "a " * 20_000, "a" * 9_999 + "&amp;", " " * 10_000 + "a"]
    assert clean_all(pa.array(raw)).to_pylist() == [clean(value[: text.MAX_RAW_CHARS]) for value in raw]
