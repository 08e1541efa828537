"""Pages: deal the links out to pages and write each page as HTML and as the metadata of a WAT record.

in      links
out     Page: its URL, its links in document order, its bytes
law     a link is on exactly one page; a page is in a WARC or in a WAT, never in both
flavors "" plain UTF-8; base:HREF; latin1_header and latin1_meta (ISO-8859-1, told by the header or by a meta element
        only); broken (says UTF-8, holds other bytes outside of its links' texts); utf-8 (as plain); og (the link is the
        page's og:image, the page is a plain one)
"""

import html
from dataclasses import dataclass

import numpy as np

from infra.mini.plan import HOSTS, Link, Plan

WAT_SHARE = 0.4  # of the pages that may be in either
FILLER = (
    "<p>Welcome to our collection of small pictures. Use the menu to find more of them.</p>",
    '<nav><a href="/">Start</a> | <a href="/pages/1.html">First page</a> | <a href="/about.html">About</a></nav>',
    '<!-- <img src="/pics/comment.png" alt="a picture in a comment is none"> -->',
    '<script>document.write(\'<img src="/pics/script.png" alt="a picture in a script is none">\');</script>',
    "<ul><li>new today</li><li>most viewed</li></ul>",
    '<style>body { background: url("/pics/background.png") }</style>',
    '<p lang="en">All pictures on this page were drawn by the same small studio.</p>',
)


@dataclass(slots=True)
class Page:
    """One page of the web."""

    url: str
    archive: str  # warc or wat
    flavor: str
    links: list[Link]


def deal(plan: Plan) -> list[Page]:
    """Give every link its page, 6 to 16 links each; pages in mixed order, WARC and WAT apart."""
    chance = plan.random
    hosts = HOSTS if plan.scale > 0.2 else HOSTS[::6]
    buckets: dict[tuple[str, str, str], list[Link]] = {}
    cover = []
    for number in chance.permutation(len(plan.links)):
        link = plan.links[number]
        if link.flavor == "og":
            cover.append(link)
            continue
        flavor = "" if link.flavor == "utf-8" else link.flavor
        archive = link.archive or ("wat" if chance.random() < WAT_SHARE else "warc")
        host = link.page_host or hosts[chance.integers(len(hosts))]
        buckets.setdefault((host, archive, flavor), []).append(link)
    pages = []
    for (host, archive, flavor), links in buckets.items():
        while links:
            size = int(chance.integers(6, 17))
            url = f"http://{host}/pages/{len(pages) + 1}.html"
            pages.append(Page(url, archive, flavor, links[:size]))
            links = links[size:]
    plain = [page for page in pages if page.archive == "warc" and not page.flavor]
    for page, link in zip(plain, cover, strict=False):
        page.links.insert(0, link)
    for link in cover[len(plain) :]:
        pages.append(Page(f"http://{hosts[0]}/pages/{len(pages) + 1}.html", "warc", "", [link]))
    return [pages[i] for i in chance.permutation(len(pages))]


def attributes(link: Link) -> dict[str, str]:
    """The img's attributes as the HTML has them, escaped."""
    written = link.written or ("" if link.reason == "bad_url" else link.url)
    src = link.src if link.no_src else written
    found = {} if link.no_src and not link.src else {"src": html.escape(src)}
    found |= {name: html.escape(value) for name, value in link.extra.items()}
    for name in ("alt", "title"):
        if name in link.raw:
            found[name] = link.raw[name].replace('"', "&quot;")
        elif name in link.texts:
            found[name] = html.escape(link.texts[name])
    return found


def element(link: Link, chance: np.random.Generator) -> str:
    """The link as HTML."""
    pairs = list(attributes(link).items())
    if chance.random() < 0.3:
        pairs = pairs[::-1]
    style = chance.random()
    name, quote = ("IMG", "'") if style < 0.15 and not any("'" in value for _, value in pairs) else ("img", '"')
    image = f"<{name} " + " ".join(f"{key}={quote}{value}{quote}" for key, value in pairs) + (" />" if style > 0.6 else ">")
    if "figcaption" in link.texts:
        words = link.texts["figcaption"].split(" ")
        bold = int(chance.integers(len(words)))
        text = " ".join(f"<b>{html.escape(word)}</b>" if i == bold else html.escape(word) for i, word in enumerate(words))
        return f"<figure>{image}\n<figcaption>\n  {text}\n</figcaption></figure>"
    if "srcset" in link.extra and style < 0.5:
        return f'<picture><source srcset="/pics/other.avif" type="image/avif">{image}</picture>'
    return f"<div class=pic>{image}</div>" if style < 0.8 else f'<a href="/pages/1.html">{image}</a>'


def page_html(page: Page, chance: np.random.Generator) -> tuple[bytes, str]:
    """The page's bytes and its Content-Type."""
    charset = {"latin1_header": "iso-8859-1", "latin1_meta": "iso-8859-1"}.get(page.flavor, "utf-8")
    head = [] if page.flavor == "latin1_header" else [f'<meta charset="{charset}">']
    head.append(f"<title>Pictures on {page.url.split('/')[2]}</title>")
    if page.flavor.startswith("base:"):
        head.append(f'<base href="{page.flavor[5:]}">')
    body = []
    for link in page.links:
        if link.flavor == "og":
            head.append(f'<meta property="og:image" content="{html.escape(link.url)}">')
            head.append(f'<meta property="og:image:alt" content="{html.escape(link.texts["og:image:alt"])}">')
            continue
        if chance.random() < 0.2:
            body.append(FILLER[chance.integers(len(FILLER))])
        body.append(element(link, chance))
    broken = "<p>Caf\xe9 au lait, cr\xe8me br\xfbl\xe9e</p>" if page.flavor == "broken" else ""
    text = "<!DOCTYPE html>\n<html lang=en><head>\n" + "\n".join(head) + "\n</head><body>\n"
    data = text.encode(charset) + broken.encode("latin-1") + "\n".join(body).encode(charset) + b"\n</body></html>\n"
    return data, "text/html" if page.flavor == "latin1_meta" else f"text/html; charset={charset}"


def page_metadata(page: Page, chance: np.random.Generator) -> dict[str, object]:
    """The page's HTML-Metadata, as a WAT has it: texts and URLs as the HTML has them."""
    links: list[dict[str, str]] = [{"path": "A@/href", "url": "/pages/1.html", "text": "First page"}]
    for link in page.links:
        found = attributes(link)
        links.append({"path": "IMG@/src", "url": found.pop("src"), **found})
        if chance.random() < 0.3:
            links.append({"path": "A@/href", "url": "/about.html", "text": "About"})
    head: dict[str, object] = {
        "Title": f"Pictures on {page.url.split('/')[2]}",
        "Metas": [{"name": "viewport", "content": "width=device-width"}],
        "Link": [{"path": "LINK@/href", "url": "/style.css", "rel": "stylesheet"}],
    }
    if page.flavor.startswith("base:"):
        head["Base"] = page.flavor[5:]
    return {"Head": head, "Links": links}
