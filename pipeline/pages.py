"""Pages: the image links of an HTML document.

in      bytes of a page, hostile, in any encoding
out     one Link for each `<img>` and each `<meta property="og:image">`, in document order
drops   none here: what is wrong with a link is said by crawl
law     never raises; bytes that are broken become U+FFFD
cost    linear for real pages. Only the first MAX_TAGS start tags are read: an HTML parser is quadratic in the depth of a
        page, and 200,000 open tags (1 MB) cost lexbor 400 seconds
source  WHATWG HTML (lexbor by selectolax); WHATWG Encoding for the labels; Open Graph protocol for og:image
"""

import codecs
import re
from itertools import islice
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

from pipeline import urls

MAX_TAGS = 20_000
MAX_CAPTION_NODES = 200  # captions may stand in captions; what one reads must not grow with the page
MAX_FIGURE_DEPTH = 32  # how far above an img its figure may stand
PRESCAN_BYTES = 1024  # where a page must name its encoding
START_TAG = re.compile(r"<[^/]")
META_CHARSET = re.compile(rb"<meta[^>]*?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.+-]+)", re.I)
BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
HTML_START = re.compile(rb"\s*(?:<!--.{0,400}?-->\s*)?<(?:!doctype\s+html|html|head|body|title|meta)\b", re.I | re.S)
# Python's names of the encodings that pages may have; the second dict is what a browser reads where a page says the first.
ENCODING_NAMES = """
    utf-8 cp866 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-10 iso8859-13 iso8859-14
    iso8859-15 iso8859-16 koi8-r koi8-u mac-roman mac-cyrillic cp874 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256
    cp1257 cp1258 gb18030 big5hkscs euc_jp iso2022_jp cp932 cp949 utf-16-le utf-16-be
"""
ENCODINGS = frozenset(ENCODING_NAMES.split())
BROWSER = {
    **{"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874"},
    **{
        "gb2312": "gb18030",
        "gbk": "gb18030",
        "big5": "big5hkscs",
        "shift_jis": "cp932",
        "euc_kr": "cp949",
        "utf-16": "utf-16-le",
    },
}
BLOCK_NAMES = "address blockquote br dd div dl dt figure h1 h2 h3 h4 h5 h6 hr li ol p pre section table td th tr ul"
BLOCKS = frozenset(BLOCK_NAMES.split())
UNSEEN = frozenset(("script", "style", "template"))
LAZY = ("data-src", "data-lazy-src", "data-original")
OG_IMAGE, OG_ALT = "og:image", "og:image:alt"
ATTRIBUTES = ("alt", "title", "figcaption", OG_ALT)  # where texts stand


class Link(NamedTuple):
    """An image link: its URL as written, and (attribute, text) as written, texts that are empty included."""

    url: str
    texts: list[tuple[str, str]]


def encoding_of(label: str) -> str | None:
    """Python's name of the encoding that a browser reads under `label`, or None for what no page may be in."""
    try:
        name = codecs.lookup(label.strip().strip("\"'")).name
    except (LookupError, ValueError):  # ValueError: a NUL in the label
        return None
    name = BROWSER.get(name, name)
    return name if name in ENCODINGS else None


def decode(page: bytes, http_charset: str | None = None) -> str:
    """The page's text.

    Its encoding: the byte order mark's, else the HTTP header's, else its own meta's, else UTF-8, or windows-1252 where it is not.
    """
    for bom, encoding in BOMS.items():
        if page.startswith(bom):
            return page[len(bom) :].decode(encoding, "replace")
    encoding = encoding_of(http_charset) if http_charset else None
    if encoding is None and (meta := META_CHARSET.search(page, 0, PRESCAN_BYTES)):
        encoding = encoding_of(meta[1].decode("ascii"))
        if encoding and encoding.startswith("utf-16"):  # a meta that could be read is not in UTF-16
            encoding = "utf-8"
    if encoding is None:
        try:
            return page.decode("utf-8")
        except UnicodeDecodeError as error:
            cut_at_the_end = error.start >= len(page) - 3
            encoding = "utf-8" if cut_at_the_end else "cp1252"
    return page.decode(encoding, "replace")


def looks_like_html(data: bytes) -> bool:
    """True where the first bytes are those of an HTML page."""
    start = data[:PRESCAN_BYTES]
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        start = start.replace(b"\0", b"")[2:]
    return HTML_START.match(start.removeprefix(codecs.BOM_UTF8)) is not None


def _attribute(node: LexborNode, name: str) -> str:
    return node.attributes.get(name) or ""


def _caption(figcaption: LexborNode) -> str:
    """The text of a figcaption; a block or a line break in it separates words."""
    pieces: list[str] = []
    for node in islice(figcaption.traverse(include_text=True), MAX_CAPTION_NODES):
        if node.is_text_node and not (node.parent and node.parent.tag in UNSEEN):
            pieces.append(node.text_content or "")
        elif node.tag in BLOCKS:
            pieces.append(" ")
    return "".join(pieces)


def _figure_of(node: LexborNode) -> int | None:
    """The identity of the nearest figure around a node."""
    above = node.parent
    for _ in range(MAX_FIGURE_DEPTH):
        if above is None:
            return None
        if above.tag == "figure":
            return above.mem_id
        above = above.parent
    return None


def _captions(document: LexborHTMLParser) -> dict[int | None, str]:
    """The text of the first figcaption of each figure."""
    captions: dict[int | None, str] = {}
    for figcaption in document.css("figcaption"):
        figure = _figure_of(figcaption)
        if figure is not None and figure not in captions:
            captions[figure] = _caption(figcaption)
    return captions


def _image_url(image: LexborNode) -> str:
    """The URL of an img as written: the largest of srcset, else a lazy attribute, else src."""
    attributes = image.attributes
    for name in ("srcset", "data-srcset"):
        if (value := attributes.get(name)) and (url := urls.largest(value)):
            return url
    return next((value for name in LAZY if (value := (attributes.get(name) or "").strip())), attributes.get("src") or "")


def _og_alts(metas: list[tuple[str, str]]) -> list[str]:
    """For each og:image, in order: the og:image:alt that follows it before the next og:image, else the first of the page."""
    first = next((content for name, content in metas if name == OG_ALT and content.strip()), "")
    alts: list[str | None] = []
    for name, content in metas:
        if name == OG_IMAGE:
            alts.append(None)
        elif name == OG_ALT and alts and alts[-1] is None:
            alts[-1] = content
    return [first if alt is None else alt for alt in alts]


def parse(text: str) -> LexborHTMLParser:
    """The document of a page's text, or of its first MAX_TAGS start tags."""
    if text.count("<") - text.count("</") > MAX_TAGS:
        cut = next(islice(START_TAG.finditer(text), MAX_TAGS, None), None)
        text = text[: cut.start()] if cut else text
    return LexborHTMLParser(text)


def base_href(document: LexborHTMLParser) -> str | None:
    """The href of the first `<base>` that has one."""
    node = document.css_first("base[href]")
    return _attribute(node, "href") if node else None


def canonical_link(document: LexborHTMLParser) -> str | None:
    """The page's own idea of its URL, where it is absolute: for pages that come as files."""
    node = document.css_first("link[rel=canonical]")
    return urls.canonical(_attribute(node, "href")) if node else None


def links(document: LexborHTMLParser) -> list[Link]:
    """The image links of the page, in document order."""
    nodes = document.css("img, meta[property]")
    names = [_attribute(node, "property").strip().lower() if node.tag == "meta" else "" for node in nodes]
    alts = iter(_og_alts([(name, _attribute(node, "content")) for name, node in zip(names, nodes, strict=True) if name]))
    captions = _captions(document)
    found = []
    for name, node in zip(names, nodes, strict=True):
        if node.tag == "img":
            caption = captions.get(_figure_of(node), "") if captions else ""
            texts = [("alt", _attribute(node, "alt")), ("title", _attribute(node, "title")), ("figcaption", caption)]
            found.append(Link(_image_url(node), texts))
        elif name == OG_IMAGE:
            found.append(Link(_attribute(node, "content"), [(OG_ALT, next(alts))]))
    return found
