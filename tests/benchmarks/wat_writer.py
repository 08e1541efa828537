"""Write a WAT file that looks like Common Crawl's: three records a page, most links no images, most images without a text.

shape   a page has about 25 images, 9 of them with an `alt`, and 80 other links, as cc2dataset counted in a real WAT
        (1.14 million images and 405,000 of them with a text in one file of about 45,000 pages)
law     a function of (num_pages, seed)
"""

import gzip
import json

import numpy as np

WORD_LIST = """
    the a of and in with on for old new red blue green small large house garden city river mountain woman man child dog
    cat bird car train boat bridge street market kitchen table chair lamp shirt dress shoe watch ring phone camera laptop
    cover book poster map photo view front back summer winter night morning sunset beach island forest lake snow rain
    festival wedding concert museum painting portrait drawing vector logo icon banner sale product review best price free
    shipping guide how to make easy recipe chicken cake bread soup salad coffee tea wine beer football player team match
    award president minister report news
"""
WORDS = WORD_LIST.split()
FOREIGN = (
    "Das alte Haus am Ufer des Flusses im Winter",
    "Une belle maison au bord de la mer avec un grand jardin",
    "La casa blanca en la playa con vistas al mar y a la montaña",
    "Красивый дом на берегу реки зимой",
    "東京の夜景と電車の写真",
)
HEADER = (
    "WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-31T01:17:49Z\r\n"
    "WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\nContent-Type: application/json\r\n"
    "Content-Length: {size}\r\n\r\n"
)


def record(url: str, number: int, envelope: dict[str, object]) -> bytes:
    """One gzip member with one metadata record."""
    document = {"Container": {"Filename": "bench.warc.gz", "Compressed": True, "Offset": str(number)}, "Envelope": envelope}
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return gzip.compress(HEADER.format(url=url, number=number, size=len(body)).encode() + body + b"\r\n\r\n", 6, mtime=0)


def sentence(rng: np.random.Generator) -> str:
    """A text as found in `alt`: mostly some English words; sometimes a file name, an entity, another language, one word."""
    kind = rng.random()
    if kind < 0.08:
        return f"IMG_{rng.integers(10_000):04d}.jpg"
    if kind < 0.16:
        return FOREIGN[rng.integers(len(FOREIGN))]
    if kind < 0.22:
        return "logo"
    words = " ".join(WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(2, 14)))
    return f"{words.title()} &amp; more" if kind < 0.3 else words


def links(rng: np.random.Generator, host: str) -> list[dict[str, str]]:
    """The links of a page, images among them."""
    found: list[dict[str, str]] = []
    for _ in range(rng.integers(40, 120)):
        url = f"/{WORDS[rng.integers(len(WORDS))]}/{rng.integers(10**6)}"
        found.append({"path": "A@/href", "url": url, "text": sentence(rng)})
    for _ in range(rng.integers(5, 45)):
        number = rng.integers(10**9)
        url = f"https://cdn.{host}/media/{number}.jpg?w=640" if rng.random() < 0.6 else f"/wp-content/uploads/{number}.png"
        image = {"path": "IMG@/src", "url": url}
        if rng.random() < 0.36:
            image["alt"] = sentence(rng)
        found.insert(int(rng.integers(len(found))), image)
    return found


def write_wat(path: str, *, num_pages: int, seed: int = 0) -> None:
    """Write `num_pages` pages, each with the metadata of its request, its response and its own metadata."""
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        for page in range(num_pages):
            host = f"www.{WORDS[rng.integers(len(WORDS))]}{rng.integers(10**5)}.com"
            url = f"https://{host}/{WORDS[rng.integers(len(WORDS))]}/{page}"
            head = {"Title": sentence(rng), "Metas": [{"name": "viewport", "content": "width=device-width"}] * 12}
            html = {"Head": head, "Links": links(rng, host)}
            request = {"HTTP-Request-Metadata": {"Headers": {"User-Agent": "CCBot/2.0", "Host": host}}}
            response = {"HTTP-Response-Metadata": {"Response-Message": {"Status": "200"}, "HTML-Metadata": html}}
            for step, payload in enumerate((request, response, {"WARC-Metadata-Metadata": {"fetchTimeMs": "120"}})):
                envelope = {"Payload-Metadata": payload, "WARC-Header-Metadata": {"WARC-Target-URI": url}}
                file.write(record(url, 3 * page + step, envelope))
