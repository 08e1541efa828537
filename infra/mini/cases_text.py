"""Cases that texts decide: what the crawl drops, what no query finds, and all the ways in which a page gives a text."""

from infra.mini import pictures, texts
from infra.mini.plan import Link, Plan

BAD_URLS = (
    "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
    "javascript:void(0)",
    "ftp://files.mini.test/pic{n}.png",
    "mailto:someone{n}@mini.test",
    "",
    "http://[bad{n}",
    "about:blank",
    "file:///home/pic{n}.png",
)


def _words(plan: Plan) -> tuple[str, str]:
    """A concept and a caption of it, for texts without a picture."""
    what = pictures.drawing(plan.seed, f"x{plan.number()}", plan.concept())
    return what.concept, plan.text(what, texts.MIDDLE)


def _drop(plan: Plan, kind: str, reason: str, text: str, concept: str = "", stage: str = "crawl") -> Link:
    attributes = {"": ""} if reason == "no_text" else {"alt": text}
    url = plan.url("png")
    plan.never.append(url)
    return plan.add(Link(kind, url, attributes, stage, reason, concept))


def _many(plan: Plan, kind: str, full: int, choices: tuple[str, ...], reason: str) -> None:
    for number in range(plan.count(full)):
        text = choices[number % len(choices)]
        n = f"{1000 + plan.number() % 9000}"
        _drop(plan, kind, reason, text.replace("{n}", n).replace("{d}", str(number % 40)))


def dropped_by_crawl(plan: Plan) -> None:
    """Every reason of the crawl."""
    for number in range(plan.count(1800)):
        link = _drop(plan, "no_text", "no_text", "")
        if number % 3 == 1:
            link.raw = {"alt": ""}
        elif number % 3 == 2:
            link.raw = {"alt": " \n ", "title": "&nbsp;"}
    _many(plan, "too_short", 300, texts.TOO_SHORT, "too_short")
    _many(plan, "no_letters", 250, texts.NO_LETTERS, "no_letters")
    _many(plan, "boilerplate", 500, texts.BOILERPLATE, "boilerplate")
    _many(plan, "file_name", 300, texts.FILE_NAMES, "boilerplate")
    for _ in range(plan.count(60)):
        concept = plan.concept()
        _drop(plan, "too_long", "too_long", texts.too_long(plan.random, concept), concept)
    for _ in range(plan.count(120)):
        concept, text = _words(plan)
        letter = "abcw.!-"[plan.number() % 7]
        _drop(plan, "repeated_chars", "repeated_chars", f"{text} {letter * (9 + plan.number() % 20)}", concept)
    languages = [sentence for sentences in texts.FOREIGN.values() for sentence in sentences]
    for number in range(max(plan.count(900), len(texts.FOREIGN))):
        text = languages[number % len(languages)] if plan.scale >= 0.2 else languages[number * 5 % len(languages)]
        _drop(plan, "language", "language", text)
    for number in range(max(plan.count(360), len(BAD_URLS))):
        concept, text = _words(plan)
        url = BAD_URLS[number % len(BAD_URLS)].format(n=plan.number())
        plan.add(Link("bad_url", url, {"alt": text}, "crawl", "bad_url", concept, written=url))


def no_query(plan: Plan) -> None:
    """English, but of words that no query list has."""
    for number in range(max(plan.count(500), 3)):
        _drop(plan, "no_query", "no_query", texts.UNKNOWN[number % len(texts.UNKNOWN)], stage="match")


def kept_by_markup(plan: Plan) -> None:
    """The ways to write a link: relative, base, srcset, lazy, figure, og:image, two texts for one picture."""
    for number in range(plan.count(400)):
        _relative(plan, number)
    for number in range(plan.count(120)):
        relative = number % 2 == 1
        what, link = plan.good("base", folder="assets")
        host, name = link.url.split("/")[2], link.url.rsplit("/", 1)[1]
        link.written = name if number % 3 else f"../assets/{name}"
        link.flavor = "base:/assets/" if relative else f"base:http://{host}/assets/"
        link.page_host = host if relative else ""
    for number in range(plan.count(240)):
        _srcset(plan, number)
    for number in range(plan.count(240)):
        _lazy(plan, number)
    for number in range(plan.count(300)):
        what, link = plan.good("figcaption")
        link.archive = "warc"
        link.texts = {"figcaption": plan.text(what, texts.LONG)}
        if number % 2:
            link.texts["alt"] = plan.text(what, texts.SHORT)
    for _ in range(plan.count(100)):
        what, link = plan.good("og_image")
        link.archive, link.flavor = "warc", "og"
        link.texts = {"og:image:alt": plan.text(what)}
    for number in range(plan.count(500)):
        what, link = plan.good("two_texts")
        link.texts = {"alt": plan.text(what, texts.SHORT), "title": plan.text(what, texts.LONG)}
        if number % 3 == 0:
            link.texts = {"title": link.texts["title"]}
        elif number % 3 == 1:
            link.texts = {"alt": link.texts["title"], "title": link.texts["alt"]}


def _relative(plan: Plan, number: int) -> None:
    host = plan.any_host()
    folder = ("pics", "pages", "pics/deep")[number % 3]
    _, link = plan.good("relative", host=host, folder=folder)
    path = link.url.removeprefix(f"http://{host}")
    forms = (
        (path, f"..{path}", f"//{host}{path}")
        if number % 3 == 0
        else (path.removeprefix("/pages/"), f"./{path.removeprefix('/pages/')}")
    )
    if number % 3 == 2:
        forms = (f"../pages/..{path}", path)
    link.written, link.page_host = forms[number // 3 % len(forms)], host


def _srcset(plan: Plan, number: int) -> None:
    what, link = plan.good("srcset")
    small, middle = plan.url("png"), plan.url("png")
    for url in (small, middle):
        plan.serve(url, what)
        plan.never.append(url)
    forms = (
        ("srcset", f"{small} 100w, {middle} 320w, {link.url} 640w"),
        ("srcset", f"{link.url} 2x, {small} 1x, {middle} 1.5x"),
        ("data-srcset", f"{small} 200w,\n   {link.url} 1000w,\n {middle} 900w"),
        ("srcset", f"{small}, {link.url} 3x"),
    )
    name, value = forms[number % len(forms)]
    link.archive, link.extra, link.no_src, link.src = "warc", {name: value}, True, small
    link.flavor = ""


def _lazy(plan: Plan, number: int) -> None:
    what, link = plan.good("lazy")
    small = plan.url("gif")
    plan.serve(small, what)
    plan.never.append(small)
    name = ("data-src", "data-lazy-src", "data-original")[number % 3]
    link.archive, link.extra, link.no_src = "warc", {name: link.url}, True
    link.src = (BAD_URLS[0], small, "")[number // 3 % 3]


def kept_by_encoding(plan: Plan) -> None:
    """Entities, mojibake, other charsets, and URLs that are not in canonical form."""
    for number in range(plan.count(210)):
        what, link = plan.good("entities")
        shown, written = texts.ENTITIES[number % len(texts.ENTITIES)]
        link.texts = {"alt": texts.fill(shown, what.concept, what.color, what.background)}
        link.raw = {"alt": texts.fill(written, what.concept, what.color, what.background)}
    for number in range(plan.count(60)):
        what, link = plan.good("mojibake")
        text = f"{texts.ACCENTED[number % len(texts.ACCENTED)]}: {plan.text(what, texts.MIDDLE)}"
        link.texts, link.raw = {"alt": text}, {"alt": text.encode().decode("cp1252")}
        link.flavor = "utf-8"
    for number in range(plan.count(60)):
        what, link = plan.good("charset")
        text = f"{texts.ACCENTED[number % len(texts.ACCENTED)]}: {plan.text(what, texts.MIDDLE)}"
        link.texts, link.archive = {"alt": text}, "warc"
        link.raw = {"alt": text}
        link.flavor = ("latin1_header", "latin1_meta", "utf-8")[number % 3]
    for _ in range(plan.count(40)):
        _, link = plan.good("broken_encoding")
        link.archive, link.flavor = "warc", "broken"
    for number in range(plan.count(90)):
        _url_form(plan, number)
    for _ in range(plan.count(60)):
        what = plan.draw(plan.concept())
        plan.kept[what.concept] = plan.kept.get(what.concept, 0) + 1
        url = f"http://{plan.any_host()}/show.php?id={plan.number()}&size=large"
        plan.serve(url, what)
        plan.add(Link("entity_url", url, {"alt": plan.text(what)}, concept=what.concept, picture=what.name))


def _url_form(plan: Plan, number: int) -> None:
    what = plan.draw(plan.concept())
    plan.kept[what.concept] = plan.kept.get(what.concept, 0) + 1
    host, n = plan.any_host(), plan.number()
    canonical, written = (
        (f"http://{host}/pics/Form{n}.PNG", f"HTTP://{host.upper()}:80/pics/Form{n}.PNG"),
        (f"http://{host}/pics/form{n}.png", f"http://{host}/pics/form{n}.png#top"),
        (f"http://{host}/pics/form{n}.png", f"http://{host}/pics/./old/../form{n}.png"),
        (f"http://{host}/pics/my%20form%20{n}.png", f"http://{host}/pics/my form {n}.png"),
        (f"http://{host}/pics/caf%C3%A9{n}.png", f"http://{host}/pics/café{n}.png"),
        (f"http://{host}/pics/form{n}.png?", f"  http://{host}/pics/form{n}.png?\n"),
    )[number % 6]
    plan.serve(canonical, what)
    link = Link("url_form", canonical, {"alt": plan.text(what)}, concept=what.concept, picture=what.name, written=written)
    link.flavor = "utf-8"
    plan.add(link)
