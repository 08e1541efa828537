"""Texts: what the pages of the small web say about their pictures.

in      concept, colour, background and a generator of chance
out     English captions of three lengths; texts that the crawl must drop; the corpus for words and bigrams
law     a caption of LONG has more distinct words than any of SHORT; no caption holds a word of UNKNOWN_WORDS, so that a
        text of those alone matches no query; no template names a concept
"""

import re

import numpy as np

PLURAL = ("scissors", "headphones", "thumbs up", "thumbs down", "quotation marks", "balance scales", "refresh arrows")

SHORT = (  # at most 6 distinct words; as on the real web, few texts name a color
    "{an} icon",
    "{n} icon",
    "the {n}",
    "small {n}",
    "{n} glyph",
    "{n} pictogram",
    "simple {n} icon",
    "{c} {n}",
    "{c} {n} on {b}",
)
MIDDLE = (
    "icon of {an} for web pages",
    "simple drawing of {an}",
    "{n} sign, flat design",
    "clip art of {an}",
    "{n}, drawn in one color",
    "vector graphic of {an}",
    "{n} silhouette, free download",
    "minimal {n} icon for apps",
    "cartoon of {an} on paper",
    "this picture shows {an}",
    "{n} button for a menu",
    "{ac} {n} icon on {ab} background",
    "{c} {n} sign, flat design",
    "flat {c} {n} over {ab} square",
    "{an} shown in {c}",
)
LONG = (  # at least 7 distinct words
    "This drawing shows {an} for a web page",
    "Free download of {an} icon, drawn flat",
    "Here we see {an} that was painted by hand",
    "A clean and simple illustration of {an}",
    "The same {n} can be found in our shop",
    "Learn new English words with {an}",
    "One more drawing for your app: {an}",
    "Part of a large icon set: {an} in {c}",
    "Small graphic of {an}, printed in {c} ink on {b}",
    "{ac} {n} stands out very well on {b}",
    "Poster with {ac} {n} in the middle of {ab} wall",
)

USUAL = SHORT * 5 + MIDDLE + LONG  # most texts of the web are short

# English, but no lemma of WordNet 3.0 and never a word of a caption or of the corpus
UNKNOWN_WORDS = (
    "because", "should", "would", "could", "without", "although", "whichever", "themselves", "unless", "their", "they",
    "whom", "whose", "into", "until", "during", "among", "those", "yourselves", "since", "whereas", "shall", "anyone",
    "everyone", "whoever", "whenever", "theirs", "himself", "herself", "itself", "ourselves", "towards", "ought", "cannot",
    "them",
)  # fmt: skip
UNKNOWN = (
    "because they should, although without them",
    "would they, should they, could they",
    "although they could, unless they would",
    "whichever they should, because without themselves",
    "whoever they shall, whenever they ought",
    "themselves among those, since they cannot",
    "unless everyone should, because anyone could",
    "towards themselves, without theirs, until they would",
    "because everyone would, whereas ourselves could",
    "whose, whom, whichever, whenever they should",
    "into theirs, during theirs, without theirs",
    "himself, herself, itself, themselves, ourselves, yourselves",
)
TOO_SHORT = ("ok", "a", "pic", "x1", "img", "logo", "icon", "the", "no", "go", "new", "red", "map", "art")
NO_LETTERS = ("12345 67890", "2024-05-18", "+++ 100 +++", "1920 / 1080", "3.14159 26535", "( 42 / 43 )", "007 008 009", "$ 19.99")
BOILERPLATE = (
    "image", "photo", "picture", "untitled", "placeholder", "thumbnail", "click to enlarge", "click here", "read more",
    "loading...", "share on facebook", "Image", "PHOTO", "Untitled", "Click here", "Read More",
)  # fmt: skip
FILE_NAMES = ("IMG_{n}.jpg", "DSC{n}.JPG", "banner-{d}.png", "img_{n}.JPG")

FOREIGN = {
    "de": (
        "Dieses Bild zeigt ein rotes Fahrrad vor einem weißen Hintergrund in unserem Garten",
        "Die neue Ausgabe unserer Zeitschrift erscheint nächste Woche und kostet wieder vier Euro",
        "Wir haben gestern mit den Kindern einen langen Spaziergang durch den Wald gemacht",
        "Das Wetter war leider sehr schlecht und deshalb sind wir zu Hause geblieben",
        "Bitte beachten Sie, dass unser Geschäft am Montag wegen Umbau geschlossen bleibt",
    ),
    "fr": (
        "Cette image montre une petite maison bleue au bord de la mer pendant les vacances",
        "Nous avons passé une très belle journée avec nos amis dans les montagnes",
        "Le magasin sera fermé lundi prochain parce que nous préparons la nouvelle collection",
        "Les enfants jouent dans le jardin pendant que leur grand-mère prépare le dîner",
        "Vous trouverez toutes les informations sur notre site avant la fin de la semaine",
    ),
    "es": (
        "Esta imagen muestra una bicicleta verde delante de una pared blanca en nuestra calle",
        "Los niños juegan todas las tardes en el parque que está cerca de mi casa",
        "Nuestra tienda estará cerrada el lunes porque estamos preparando la nueva temporada",
        "Ayer fuimos a la playa con unos amigos y comimos pescado muy fresco",
        "El tren llegó con mucho retraso y por eso perdimos la reunión de la mañana",
    ),
    "ru": (
        "На этой картинке изображён красный велосипед на белом фоне в нашем саду",
        "Вчера мы с друзьями долго гуляли по лесу и собирали грибы до самого вечера",
        "Наш магазин в понедельник не работает, потому что мы готовим новую коллекцию товаров",
        "Дети играют во дворе, пока бабушка готовит ужин для всей большой семьи",
    ),
    "zh": (
        "这张图片展示了白色背景上的一辆红色自行车,非常漂亮",
        "昨天我们和朋友们一起去山里散步,一直走到晚上才回家",
        "由于正在准备新的产品,我们的商店下星期一不营业",
        "孩子们在院子里玩耍,奶奶正在厨房里准备晚饭",
    ),
    "ja": (
        "この絵は白い背景の上に描かれた赤い自転車を示しています",
        "昨日は友達と一緒に森の中を長い時間歩いてとても楽しかったです",
        "新しい商品の準備のため、来週の月曜日はお店をお休みします",
        "子供たちは庭で遊んでいて、おばあさんは台所で夕食を作っています",
    ),
    "ar": (
        "تظهر هذه الصورة دراجة حمراء على خلفية بيضاء في حديقة منزلنا الجميل",
        "ذهبنا أمس مع أصدقائنا في نزهة طويلة في الجبال وعدنا إلى البيت في المساء",
        "متجرنا مغلق يوم الاثنين القادم لأننا نعد مجموعة جديدة من المنتجات",
        "يلعب الأطفال في الحديقة بينما تعد جدتهم العشاء لجميع أفراد العائلة",
    ),
}

ACCENTED = ("Café sign", "Crème poster", "Façade art", "Naïve painting", "Déjà vu print")
ENTITIES = (  # as a person reads it, as the HTML has it
    ("black & white print of {an} in {c}", "black &amp; white print of {an} in {c}"),
    ("salt & pepper style {c} {n} drawing", "salt &amp;amp; pepper style {c} {n} drawing"),
    ('the "{n}" icon in {c} and {b}', "the &quot;{n}&quot; icon in {c} and {b}"),
    ("the artist's {c} {n} on {b}", "the artist&#39;s {c} {n} on {b}"),
    ("café wall art, {ac} {n} on {b}", "caf&eacute; wall art, {ac} {n} on {b}"),
    ("wide {c} {n} on {b} paper", "wide&nbsp;{c}&#32;{n} on&#x20;{b} paper"),
    ("{c} {n} in {b} room & board", "  {c} {n}\n   in {b} room &#38; board "),
)


def article(words: str) -> str:
    """The words with "a" or "an" before them, or as they are where they are a plural."""
    if words in PLURAL:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def fill(template: str, concept: str, color: str, background: str) -> str:
    """The template with its places filled."""
    return template.format(
        n=concept, c=color, b=background, an=article(concept), ac=article(color), ab=article(background)
    )  # fmt: skip


def caption(templates: tuple[str, ...], concept: str, color: str, background: str, chance: np.random.Generator) -> str:
    """One of the templates, sometimes with a capital or a full stop."""
    text = fill(templates[chance.integers(len(templates))], concept, color, background)
    if chance.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text + "." if chance.random() < 0.1 else text


def rank(text: str) -> int:
    """Distinct case-folded words: which of two texts for one picture is the more specific."""
    return min(32, len(set(re.findall(r"\w+", text.casefold()))))


def foreign(chance: np.random.Generator) -> str:
    """A sentence in a language that is not English."""
    language = list(FOREIGN)[chance.integers(len(FOREIGN))]
    return FOREIGN[language][chance.integers(len(FOREIGN[language]))]


def too_long(chance: np.random.Generator, concept: str) -> str:
    """A text of more than 1000 characters."""
    parts = [caption(LONG, concept, "red", "white", chance) for _ in range(50)]
    return ". ".join(parts)


def corpus(
    concepts: tuple[str, ...], pairs: tuple[tuple[str, str], ...], num_lines: int, chance: np.random.Generator
) -> list[str]:
    """English documents, one a line, of the same kind as the captions."""
    lines = []
    for number in range(num_lines):
        concept = concepts[number % len(concepts)]
        color, background = pairs[chance.integers(len(pairs))]
        parts = [caption(templates, concept, color, background, chance) for templates in (LONG, MIDDLE, SHORT)]
        lines.append(". ".join(part.rstrip(".") for part in parts))
    return lines
