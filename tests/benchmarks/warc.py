"""WARC input beside BeautifulSoup with lxml doing the same extraction, on one core.

    python -m tests.benchmarks.warc [--pages 300] [--runs 3]

in      a WARC of HTML pages of the machine with images put in (texts in alt, title and figcaption, srcset, og:image), one
        response record a page
ours    our records, decoding, selectolax, links: (URL as written, attribute, text) of each image link
peer    fastwarc's records, BeautifulSoup(page, "lxml"), the same rules
links   compared page by page, texts with white space collapsed; the share of pages on which both find the same is printed (two
        parsers need not agree on broken HTML) and must be 99%
last line  `warc ratio=X.XX`: the peer's CPU time over ours, medians, runs taken in turn
"""

import argparse
import gzip
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from bs4 import BeautifulSoup, Tag  # pyright: ignore[reportMissingImports]
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipeline import archives, pages, responses
from pipeline.urls import largest
from tests.benchmarks.wat_writer import html_files

Row = tuple[str, str, str]


def picture(rng: np.random.Generator, number: int) -> str:
    """An image link as pages write them."""
    image = f'<img src="/media/{number}.jpg" alt="picture {number} of a red bicycle" title="bicycle {number}">'
    kind = rng.integers(4)
    if kind == 0:
        return f'<img src="/media/{number}.jpg">'
    if kind == 1:
        return f'<img src="s.gif" srcset="/m/{number}-1.jpg 320w, /m/{number}-2.jpg 1280w" alt="bicycle {number}">'
    if kind == 2:
        return f"<figure>{image}<figcaption>Bicycle {number}, <b>red</b></figcaption></figure>"
    return image


def write_warc(path: str, num_pages: int) -> int:
    """Write a WARC of pages of the machine, 25 image links put into each; returns how many there were."""
    rng = np.random.default_rng(0)
    files = html_files(num_pages)
    with open(path, "wb") as file:
        for number, name in enumerate(files):
            page = Path(name).read_bytes().decode("utf-8", "replace")
            images = "\n".join(f"<p>{picture(rng, 25 * number + i)}</p>" for i in range(25))
            head = f'<meta property="og:image" content="/og/{number}.jpg"><meta property="og:image:alt" content="page {number}">'
            page = page.replace("</head>", f"{head}</head>", 1).replace("</body>", f"{images}</body>", 1)
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page.encode()
            about = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://e.org/{number}\r\n"
            header = f"{about}Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
            file.write(gzip.compress(header.encode() + block + b"\r\n\r\n", 6, mtime=0))
    return len(files)


def ours(path: str) -> list[list[Row]]:
    """The rows of each page by our reader."""
    found = []
    for record in archives.read_records(path, b"response"):
        page = responses.page(record.block)
        assert page is not None
        assert page.html is not None
        links = pages.links(pages.parse(pages.decode(page.html, page.charset)))
        found.append(
            [(link.url, name, cleaned) for link in links for name, text in link.texts if (cleaned := " ".join(text.split()))]
        )
    return found


def attribute(node: Tag, name: str) -> str:
    """An attribute's value, empty where there is none."""
    value = node.get(name)
    return value if isinstance(value, str) else ""


def soup_url(image: Tag) -> str:
    """The URL of an img: the largest of srcset, else a lazy attribute, else src."""
    for name in ("srcset", "data-srcset"):
        if (value := attribute(image, name)) and (url := largest(value)):
            return url
    lazy = (attribute(image, name).strip() for name in ("data-src", "data-lazy-src", "data-original"))
    return next(filter(None, lazy), attribute(image, "src"))


def soup_rows(page: bytes) -> list[Row]:
    """The rows of a page by BeautifulSoup."""
    document = BeautifulSoup(page, "lxml", from_encoding="utf-8")
    found = []
    for node in document.find_all(["img", "meta"]):
        if node.name == "meta":
            if attribute(node, "property").lower() == "og:image":
                alt = node.find_next("meta", property="og:image:alt")
                texts = [("og:image:alt", attribute(alt, "content") if alt is not None else "")]
                url = attribute(node, "content")
            else:
                continue
        else:
            figure = node.find_parent("figure")
            caption = figure.find("figcaption") if figure is not None else None
            texts = [("alt", attribute(node, "alt")), ("title", attribute(node, "title"))]
            texts.append(("figcaption", caption.get_text() if caption is not None else ""))
            url = soup_url(node)
        found += [(url, name, cleaned) for name, text in texts if (cleaned := " ".join(text.split()))]
    return found


def peer(path: str) -> list[list[Row]]:
    """The rows of each page by fastwarc and BeautifulSoup."""
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read())
    found = []
    for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
        found.append(soup_rows(record.reader.read()))
    return found


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description="WARC input beside BeautifulSoup with lxml.")
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.warc.gz")
        num_pages = write_warc(path, options.pages)
        work: dict[str, Callable[[str], list[list[Row]]]] = {"ours": ours, "peer": peer}
        seconds: dict[str, list[float]] = {name: [] for name in work}
        results: dict[str, list[list[Row]]] = {}
        for _ in range(options.runs):
            for name, run in work.items():
                start = time.process_time()
                results[name] = run(path)
                seconds[name].append(time.process_time() - start)
        megabytes = os.path.getsize(path) / 1e6
    same = sum(a == b for a, b in zip(results["ours"], results["peer"], strict=True)) / num_pages
    num_texts = sum(map(len, results["ours"]))
    print(f"{num_pages} pages, {megabytes:.1f} MB, {num_texts} texts; the same from both on {same:.1%} of the pages")
    assert same >= 0.99, "the two do not read the same"
    taken = {name: median(values) for name, values in seconds.items()}
    for name, value in taken.items():
        print(f"{name}  {value:.3f} CPU s  {num_pages / value:,.0f} pages/s")
    print(f"warc ratio={taken['peer'] / taken['ours']:.2f}")


if __name__ == "__main__":
    main()
