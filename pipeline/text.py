"""Texts: cleaned once, and the rules that say which are worth keeping.

in      a text as an attribute holds it
out     the cleaned text; the first rule that it breaks
law     clean(clean(text)) == clean(text); a fate is a function of the text and the config alone
cost    linear in the text; language identification (about 13,000 texts/s of one core) only where cheaper signs do not decide
source  rules as in COYO-700M and LAION-5B; py3langid (naive Bayes over byte n-grams), offline
"""

import html
import re
import unicodedata
from functools import lru_cache

import ftfy
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.config import CrawlConfig

TOO_SHORT, TOO_LONG, NO_LETTERS = "too_short", "too_long", "no_letters"
REPEATED_CHARS, BOILERPLATE, LANGUAGE = "repeated_chars", "boilerplate", "language"

MAX_RAW_CHARS = 10_000  # more of an attribute is not looked at
MAX_PASSES = 10  # of cleaning; a text that still changes is built to do so
NESTED = re.compile(r"&(?:(?:amp|#0{0,9}38|#x0{0,9}26);?)+", re.I)  # "&amp;amp;amp;" in one step: 5,000 passes take seconds
PLAIN = re.compile(r"[\t\n\r -%'-~]*")  # printable ASCII without "&": nothing for unescape, ftfy or NFC to do

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
MIN_OTHER, MAX_WANTED = 0.3, 0.001  # probabilities that make an identification confident


def _clean_once(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", ftfy.fix_text(html.unescape(NESTED.sub("&amp;", text)))).split())


def clean_fully(text: str) -> str:
    """Cleaning without the short cut for plain text; what `clean` must agree with."""
    for _ in range(MAX_PASSES):
        cleaned = _clean_once(text)
        if cleaned == text:
            return text
        text = cleaned
    return ""


def clean(text: str) -> str:
    """Entities resolved, broken encodings mended (ftfy), NFC, every run of white space one space, stripped.

    Entities that were escaped twice are resolved too: the steps repeat until nothing changes.
    """
    if PLAIN.fullmatch(text):
        return " ".join(text.split())
    return clean_fully(text)


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ", 1)[0].split("-", 1)[0]


class Rules:
    """The rules of one config. Holds the language model (about 50 MB, a second to load), so: once a worker."""

    def __init__(self, config: CrawlConfig):
        self.config = config
        self.repeated = re.compile(rf"(.)\1{{{config.max_repeat},}}", re.DOTALL)
        self.scripts = SCRIPTS.get(config.language, LATIN)
        self.identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True) if config.language else None
        if self.identifier and config.language not in self.identifier.labels:
            raise ValueError(f"crawl: language must be an ISO 639-1 code that py3langid knows, found {config.language!r}")

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
        if text.casefold() in PHRASES or FILE_NAME.fullmatch(text):
            return BOILERPLATE
        return LANGUAGE if self.is_foreign(text) else None

    def is_foreign(self, text: str) -> bool:
        """True where the text is clearly in another language than the config's: by its script, else by a sure identification."""
        if self.identifier is None:
            return False
        if not (text.isascii() and self.scripts is LATIN):
            letters = [letter for letter in text if letter.isalpha()]
            known = sum(
                1 for letter in letters if (letter.isascii() and self.scripts is LATIN) or _script(letter) in self.scripts
            )
            if 2 * known < len(letters):
                return True
        words = text.lower().split()
        if len(words) < MIN_WORDS:
            return False
        if self.config.language == "en" and _is_english(words):
            return False
        language, probability = self.identifier.classify(text)
        if language == self.config.language or probability < MIN_OTHER:
            return False
        return dict(self.identifier.rank(text))[self.config.language] < MAX_WANTED


def _is_english(words: list[str]) -> bool:
    """Signs that are cheap and sure: a quarter of clearly English words, or function words only."""
    return 4 * sum(word in CLEARLY_ENGLISH for word in words) >= len(words) or FUNCTION_WORDS.issuperset(words)
