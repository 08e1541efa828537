"""Rules: which cleaned texts are worth keeping, and why the others are not.

in      cleaned texts
out     for each the first rule that it breaks, or none
law     a fate is a function of the text and the config alone; `reasons` of a column is `reason` of each of its texts
cost    measured with the language by tests/benchmarks/language.py: 186,000 texts/s of 22 languages on one core
source  rules as in COYO-700M and LAION-5B; language: pipeline/language.py
"""

import re
import unicodedata

import numpy as np
import pyarrow as pa

from pipeline import strings
from pipeline.compiled import compiled, inner
from pipeline.config import CrawlConfig
from pipeline.language import Model, is_foreign

TOO_SHORT, TOO_LONG, NO_LETTERS = "too_short", "too_long", "no_letters"
REPEATED_CHARS, BOILERPLATE, LANGUAGE = "repeated_chars", "boilerplate", "language"
REASONS = (TOO_SHORT, TOO_LONG, NO_LETTERS, REPEATED_CHARS, BOILERPLATE, LANGUAGE)
BOILERPLATE_CODE, LANGUAGE_CODE = 4, 5
KEEP, ASK = 6, 7  # what the compiled code says beside the number of a reason

PHRASES_TEXT = """
    image|images|img|photo|photos|photograph|picture|pictures|pic|icon|icons|logo|logos|banner|thumbnail|
    thumb|untitled|placeholder|avatar|profile picture|profile photo|profile image|user avatar|spacer|blank|
    default|default image|no image|no photo|image not found|image not available|no image available|
    image coming soon|photo coming soon|coming soon|alt|alt text|alt tag|image alt|image alt text|
    alternative text|click to enlarge|click to view|click to zoom|click for more|click for details|
    click image to enlarge|click on image to enlarge|click here|enlarge|enlarge image|zoom in|read more|learn more|
    see more|view more|show more|load more|more info|view image|view larger|view larger image|view full size|
    open image|image viewer|loading|loading...|loading…|please wait|please wait...|advertisement|advertising|
    sponsored|share|share this|share on facebook|share on twitter|share on pinterest|share on linkedin|
    share on whatsapp|share via email|share by email|follow us|follow us on facebook|follow us on twitter|
    follow us on instagram|like us on facebook|site logo|company logo|brand logo|header image|header logo|
    footer logo|featured image|feature image|post image|post thumbnail|product image|product photo|main image|
    hero image|cover image|background image|gallery image|article image|blog image|slide|slider image|slide image|
    null|undefined|none|caption|description|no description|no caption|no alt text|facebook share|twitter share
"""
PHRASES = frozenset(phrase.strip() for phrase in PHRASES_TEXT.split("|"))
FILE_NAME = re.compile(
    r"[^\s/\\]+\.(?:jpe?g|jpe|png|gif|webp|bmp|svg|tiff?|avif|heic|ico)|(?:img|dsc[nf]?|dcim|pict)[-_ ]?\d{3,}", re.I
)

# A text of which a quarter are these is English; in other languages they are no words, or rare ones.
CLEAR_WORDS = """
    the and with from this that these those your you our their they them there which who what when where how why are were
    have has been being would could should of for by its it's his her she it is was not all into over under after before
    between through about against during because
"""
OTHER_WORDS = """
    a an as at be but can did do does done down each else few had he him himself herself i if in just may me might more
    most much must my myself no nor now off on once only or other others out own same shall so some such than then theirs
    themselves to too up upon us very via we well whom whose will within without yet yours yourself am any both either
    every ever further here hers itself many neither never none nothing one ones ourselves ours per quite rather since
    several still though although until unless again along also another anyone anything around away back beside besides
    beyond cannot despite even everyone everything except first however last less let like little mine near need next
    often onto perhaps please regarding second something sometimes soon someone somewhere thus till together toward
    towards unlike used using usually versus whatever whenever wherever whether while yes zero two three
"""
CLEARLY_ENGLISH = frozenset(CLEAR_WORDS.split())
FUNCTION_WORDS = CLEARLY_ENGLISH | frozenset(OTHER_WORDS.split())
SCRIPTS = {  # of the languages that are not written in Latin letters
    **dict.fromkeys(("be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "uk"), frozenset({"CYRILLIC"})),
    **dict.fromkeys(("ar", "fa", "ps", "ug", "ur"), frozenset({"ARABIC"})),
    **dict.fromkeys(("hi", "mr", "ne"), frozenset({"DEVANAGARI"})),
    "zh": frozenset({"CJK"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"}),
    "ko": frozenset({"HANGUL", "CJK"}),
    **{"el": frozenset({"GREEK"}), "he": frozenset({"HEBREW"}), "th": frozenset({"THAI"}), "hy": frozenset({"ARMENIAN"})},
    **{"ka": frozenset({"GEORGIAN"}), "am": frozenset({"ETHIOPIC"}), "bn": frozenset({"BENGALI"}), "ta": frozenset({"TAMIL"})},
    **{"te": frozenset({"TELUGU"}), "kn": frozenset({"KANNADA"}), "ml": frozenset({"MALAYALAM"}), "gu": frozenset({"GUJARATI"})},
}
LATIN = frozenset(
    {"LATIN", "FULLWIDTH", "MATHEMATICAL", "FEMININE", "MASCULINE", "MODIFIER", "DOUBLE-STRUCK", "SCRIPT", "KELVIN"}
)
MIN_WORDS = 4  # shorter texts are names and brands as often as sentences
SHORT = max(map(len, PHRASES))  # characters; longer texts are no phrases: case folding makes none shorter
WORD_SLOTS = 1024


def _letters(scripts: frozenset[str]) -> np.ndarray:
    """For each code point 0: no letter, 1: a letter of another script, 2: of one of these scripts.  [0x110000] uint8"""
    kinds = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        letter = chr(code)
        if letter.isalpha():
            kinds[code] = 2 if re.split("[ -]", unicodedata.name(letter, ""), maxsplit=1)[0] in scripts else 1
    return kinds


@inner
def _slot(low, high):
    """Where a hash table of words looks first."""
    return (low * np.uint64(0x9E3779B97F4A7C15) ^ high * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(54)


def _word_table() -> np.ndarray:
    """FUNCTION_WORDS as a hash table: the word's bytes as two numbers, 1 or 2 (clearly English).  [WORD_SLOTS, 3] uint64"""
    table = np.zeros((WORD_SLOTS, 3), np.uint64)
    for word in sorted(FUNCTION_WORDS):
        low, high = np.frombuffer(word.encode().ljust(16, b"\0"), np.uint64)
        with np.errstate(over="ignore"):
            slot = int(_slot.py_func(low, high))
        while table[slot, 2]:
            slot = (slot + 1) % WORD_SLOTS
        table[slot] = low, high, 2 if word in CLEARLY_ENGLISH else 1
    return table


_words = _word_table()


def is_boilerplate(text: str) -> bool:
    """True for phrases that say nothing of the picture, and for bare file names."""
    return text.casefold() in PHRASES or FILE_NAME.fullmatch(text) is not None


def is_english(words: list[str]) -> bool:
    """Signs that are cheap and sure: a quarter of clearly English words, or function words only. Words in small letters."""
    return 4 * sum(word in CLEARLY_ENGLISH for word in words) >= len(words) or FUNCTION_WORDS.issuperset(words)


@inner
def _word_kind(low, high, words):
    """0: another word, 1: an English function word, 2: a clearly English one."""
    slot = np.int64(_slot(low, high))
    while words[slot, 2]:
        if words[slot, 0] == low and words[slot, 1] == high:
            return np.int64(words[slot, 2])
        slot = (slot + 1) % WORD_SLOTS
    return 0


@inner
def _is_english(text, words):
    """is_english of a text whose words stand between single spaces."""
    num_words = num_clear = 0
    only = True
    low, high, size = np.uint64(0), np.uint64(0), 0
    for i in range(len(text) + 1):
        byte = np.uint64(text[i]) if i < len(text) else np.uint64(32)
        if byte == 32:
            kind = _word_kind(low, high, words) if size <= 16 else 0
            num_words += 1
            num_clear += kind == 2
            only &= kind > 0
            low, high, size = np.uint64(0), np.uint64(0), 0
            continue
        if 65 <= byte <= 90:
            byte += np.uint64(32)
        if size < 8:
            low |= byte << np.uint64(8 * size)
        elif size < 16:
            high |= byte << np.uint64(8 * (size - 8))
        size += 1
    return 4 * num_clear >= num_words or only


@inner
def _code_point(text, position):
    """(code point, length) of the UTF-8 sequence here, which is valid."""
    first = np.int64(text[position])
    if first < 0x80:
        return first, 1
    second = np.int64(text[position + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.int64(text[position + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | np.int64(text[position + 3]) & 0x3F, 4


@inner
def _shape(text, letters, max_repeat):
    """(characters, letters, letters of the wanted scripts, longest run > max_repeat, small ASCII letters, spaces)."""
    num_chars = num_letters = num_wanted = num_small = num_spaces = run = 0
    last, repeated, position = np.int64(-1), False, 0
    while position < len(text):
        code, size = _code_point(text, position)
        position += size
        num_chars += 1
        kind = letters[code]
        num_letters += kind > 0
        num_wanted += kind == 2
        num_small += 97 <= code <= 122
        num_spaces += code == 32
        run = run + 1 if code == last else 1
        repeated |= run > max_repeat
        last = code
    return num_chars, num_letters, num_wanted, repeated, num_small, num_spaces


@compiled
def judge(data, offsets, limits, letters, words, model, wanted, counts, found, scores, codes, maybe) -> None:
    """Write for each text the number of the first rule in REASONS that it breaks, KEEP, or ASK: its language is not known.

    limits  min_chars, max_chars, max_repeat, 1 where the language is English; wanted: its column in the model, -1 for any
    maybe   [n], gets True where it may be boilerplate, which would come before its language
    """
    for i in range(len(offsets) - 1):
        text = data[offsets[i] : offsets[i + 1]]
        num_chars, num_letters, num_wanted, repeated, num_small, num_spaces = _shape(text, letters, limits[2])
        maybe[i] = False
        if num_chars < limits[0]:
            codes[i] = 0
        elif num_chars > limits[1]:
            codes[i] = 1
        elif num_letters == 0:
            codes[i] = 2
        elif repeated:
            codes[i] = 3
        else:
            maybe[i] = num_chars <= SHORT or num_spaces <= 1
            codes[i] = KEEP
            if wanted >= 0 and 2 * num_wanted < num_letters:
                codes[i] = LANGUAGE_CODE
            elif wanted >= 0 and num_spaces >= MIN_WORDS - 1 and not (limits[3] and _is_english(text, words)):
                if num_small == 0 and num_chars < len(text):
                    codes[i] = ASK
                elif is_foreign(text, num_small == 0, model, wanted, counts, found, scores):
                    codes[i] = LANGUAGE_CODE


class Rules:
    """The rules of one config. Holds the language model (100 MB, a second or two to load), so: once a worker."""

    def __init__(self, config: CrawlConfig):
        self.config = config
        self.repeated = re.compile(rf"(.)\1{{{config.max_repeat},}}", re.DOTALL)
        self.scripts = SCRIPTS.get(config.language, LATIN)
        self.letters = _letters(self.scripts)
        self.model = Model(load=bool(config.language))
        if config.language and config.language not in self.model.languages:
            raise ValueError(f"crawl: language must be an ISO 639-1 code that py3langid knows, found {config.language!r}")

    def reasons(self, texts: pa.StringArray) -> np.ndarray:
        """For each cleaned text the number of the first rule in REASONS that it breaks, or KEEP.  [n] -> [n] uint8"""
        data, offsets = strings.views(texts)
        config, model = self.config, self.model
        wanted = model.languages.index(config.language) if config.language else -1
        limits = np.array([config.min_chars, config.max_chars, config.max_repeat, config.language == "en"], np.int64)
        codes, maybe = np.empty(len(texts), np.uint8), np.empty(len(texts), np.bool_)
        scratch = model.scratch(int(np.diff(offsets).max(initial=0)))
        judge(data, offsets, limits, self.letters, _words, model.tables, wanted, *scratch, codes, maybe)
        for code, unsure in ((BOILERPLATE_CODE, maybe), (ASK, codes == ASK)):
            places = np.flatnonzero(unsure)
            asked = strings.at(texts, places)
            decide = is_boilerplate if code == BOILERPLATE_CODE else self.is_foreign
            known = {text: decide(text) for text in set(asked)}
            answers = np.fromiter((known[text] for text in asked), np.bool_, len(asked))
            if code == ASK:
                codes[places] = np.where(answers, LANGUAGE_CODE, KEEP)
            else:
                codes[places[answers]] = code
        return codes

    def reason(self, text: str) -> str | None:
        """The first rule that a cleaned text breaks, or None."""
        if len(text) < self.config.min_chars:
            return TOO_SHORT
        if len(text) > self.config.max_chars:
            return TOO_LONG
        if not any(map(str.isalpha, text)):
            return NO_LETTERS
        if self.repeated.search(text):
            return REPEATED_CHARS
        if is_boilerplate(text):
            return BOILERPLATE
        return LANGUAGE if self.is_foreign(text) else None

    def is_foreign(self, text: str) -> bool:
        """True where the text is clearly in another language than the config's: by its script, else by a sure identification."""
        if not self.config.language:
            return False
        kinds = [int(self.letters[ord(letter)]) for letter in text]
        if kinds.count(2) < kinds.count(1):  # less than half of the letters
            return True
        words = text.lower().split()
        if len(words) < MIN_WORDS:
            return False
        if self.config.language == "en" and is_english(words):
            return False
        return bool(self.model.are_foreign([text], self.config.language)[0])
