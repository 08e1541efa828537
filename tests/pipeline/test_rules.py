"""pipeline/rules.py and language.py: the compiled rules are the rules as written, the compiled model is py3langid's."""

import numpy as np
import pyarrow as pa
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline import rules as rules_module
from pipeline.config import CrawlConfig
from pipeline.language import MAX_WANTED, MIN_OTHER, Model
from pipeline.rules import REASONS, Rules
from pipeline.text import clean

WORD_LIST = """
    a red bicycle the of and IMG_1234.jpg logo Image click here DSC00012 ... 12 ++ ein rotes Fahrrad das Haus STRASSE straße
    une maison blanche où ÉTÉ La Casa en la playa Красный велосипед КРАСНЫЙ 東京の夜景 자전거 صورة دراجة ﬁle ſoup wooooooooow
    zzzzzzzzz Ⅷ ٣٤٥ photo picture.png banner-2.png the, The WITH from İstanbul x́ 𝔘𝔫𝔦 😀😀😀😀😀😀😀😀😀 themselves regarding
    antidisestablishmentarianism
"""
WORDS = WORD_LIST.split()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [clean(" ".join(rng.choice(WORDS, size=rng.integers(0, 12)).tolist())) for _ in range(3000)]


@pytest.mark.parametrize(
    "config",
    [CrawlConfig(), CrawlConfig(language="de", max_repeat=2), CrawlConfig(language="ru"), CrawlConfig(language="ja", min_chars=1),
     CrawlConfig(language="", max_chars=20)],
    ids=["en", "de", "ru", "ja", "any"],
)  # fmt: skip
def test_the_reasons_of_a_column_are_the_reason_of_each_text(config: CrawlConfig, texts: list[str]) -> None:
    judge = Rules(config)
    codes = judge.reasons(pa.array(texts, pa.string()))
    names = [*REASONS, None]
    differ = [
        (text, names[code], judge.reason(text))
        for text, code in zip(texts, codes, strict=True)
        if names[code] != judge.reason(text)
    ]
    assert not differ
    assert len(set(codes.tolist())) >= 5


def test_a_slice_of_a_column_is_judged_as_its_texts(texts: list[str]) -> None:
    judge = Rules(CrawlConfig(language=""))
    column = pa.array(texts, pa.string())
    assert judge.reasons(column.slice(100, 50)).tolist() == judge.reasons(column)[100:150].tolist()
    assert judge.reasons(column.slice(0, 0)).tolist() == []


def test_decisions_are_those_of_py3langid(model: Model, texts: list[str]) -> None:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    long = [*texts[:1200], "x" * 5000, "ab " * 3000, ""]
    for wanted in ("en", "uz"):  # uz has two columns in the model
        expected = []
        for text in long:
            language, probability = identifier.classify(text)
            sure = language != wanted and probability >= MIN_OTHER
            expected.append(sure and dict(identifier.rank(text))[wanted] < MAX_WANTED)
        assert model.are_foreign(long, wanted).tolist() == expected
        assert any(expected)


def test_every_phrase_is_boilerplate_in_a_column_too() -> None:
    judge = Rules(CrawlConfig(min_chars=1, language=""))
    phrases = [phrase for phrase in sorted(rules_module.PHRASES) if any(map(str.isalpha, phrase))]
    column = pa.array(phrases + [phrase.upper() for phrase in phrases])
    assert {REASONS[code] for code in judge.reasons(column)} == {"boilerplate"}
