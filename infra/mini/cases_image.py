"""Cases that the bytes decide: broken pictures, odd sizes, unusual formats; the same picture more than once; the plain rest."""

import io

from PIL import Image

from infra.mini import pictures, texts
from infra.mini.plan import HEAD_PICTURES, KEPT_PICTURES, Link, Plan, Route

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="32" cy="32" r="20"/></svg>'
HTML = b"<!DOCTYPE html><html><body><h1>This picture has moved</h1></body></html>"
PLACEHOLDER_URLS = 30  # of each placeholder picture; more than the recipe's 20
STEADY = (  # concepts whose drawings are uneven enough for their hash to bear copying
    "airplane", "eject symbol", "funnel", "music note", "news feed", "paintbrush", "palette", "shirt", "thumbs up", "bar chart",
    "video camera", "briefcase", "credit card", "leaf", "open padlock", "pie chart", "rocket", "telephone", "wheelchair",
    "warning triangle", "framed landscape", "coffee cup", "envelope", "flame", "floppy disk", "folder", "line chart", "car",
    "megaphone", "pencil", "flag", "magnifying glass", "paper plane", "right arrow", "smartphone", "closed padlock", "shield",
    "gift box", "play symbol", "price tag", "water drop", "down arrow", "house", "scissors", "speech bubble", "thumbs down",
)  # fmt: skip
SOUND_FORMS = ("exif", "cmyk", "gray", "progressive", "gray16", "rgb16", "palette", "transparent", "animated")


def bomb(number: int) -> bytes:
    """A small PNG of more than 10 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (5000, 2400 + number)).save(buffer, "PNG")
    return buffer.getvalue()


def garbage(plan: Plan) -> bytes:
    """The first bytes of a JPEG and then nothing that makes sense."""
    noise = plan.random.integers(0, 200, 800, "uint8").tobytes()
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + noise


def not_images(plan: Plan) -> None:
    """Answers that are no picture, whatever they say, and pictures that say that they are none."""
    wrong = (("html_as_jpeg", HTML, "image/jpeg"), ("svg", SVG, "image/svg+xml"), ("empty", b"", "image/png"),
             ("svg_as_png", SVG, "image/png"), ("text", b"no picture here", "image/gif"))  # fmt: skip
    for number in range(max(plan.count(140), len(wrong))):
        kind, body, media = wrong[number % len(wrong)]
        url = plan.url("jpg")
        plan.routes[url] = Route(body=body, media=media)
        plan.lost(f"not_an_image_{kind}", "not_an_image", url)
    for number in range(plan.count(10)):
        url = plan.url("png")
        plan.routes[url] = Route(body=bomb(number), media="image/png")
        plan.lost("bomb", "bomb", url)
    for _ in range(plan.count(50)):
        url = plan.url("jpg")
        plan.routes[url] = Route(body=garbage(plan), media="image/jpeg")
        plan.lost("decode_garbage", "decode", url)
    for number in range(max(plan.count(60), 3)):
        what, link = plan.good("wrong_type")
        plan.serve(link.url, what, media=("text/html", "application/octet-stream", "image/svg+xml")[number % 3])


def bad_pictures(plan: Plan) -> None:
    """Pictures that are too small, too long, or cut off."""
    for form, reason, full in (("small", "too_small", 120), ("wide", "aspect", 100)):
        for _ in range(plan.count(full)):
            what, link = plan.good(reason, form=form)
            link.stage, link.reason, link.picture = "download", reason, ""
            plan.kept[what.concept] -= 1
    for number in range(max(plan.count(110), 2)):
        form = ("jpg", "png")[number % 2]
        what, link = plan.good(f"truncated_{form}", form=form)
        link.stage, link.reason, link.picture = "download", "decode", ""
        plan.kept[what.concept] -= 1
        plan.serve(link.url, what, behavior="truncated")


def unusual_formats(plan: Plan) -> None:
    """Pictures of every kind that decoders must know; all kept."""
    for form in SOUND_FORMS:
        for _ in range(plan.count(50)):
            plan.good(f"format_{form}", form=form)


def repeats(plan: Plan) -> None:
    """The same pair on two pages, the same picture under other URLs, copies of it, and placeholders."""
    for number in range(plan.count(800)):
        what, link = plan.good("again")
        if number % 4 == 0:  # the same picture twice on one page host, one of them with a second text
            link.texts = {"alt": link.texts["alt"], "title": plan.text(what, texts.LONG)}
            if texts.rank(link.texts["alt"]) == texts.rank(link.texts["title"]):
                link.texts["title"] += " of 1999"
        plan.add(Link("again", link.url, dict(link.texts), concept=link.concept, picture=link.picture))
    for number in range(plan.count(420)):
        _specific(plan, f"duplicate_{number % 2}", what_copies=1 + number % 2, how="")
    for how, full in (("recompress", 160), ("resize", 160)):
        for number in range(plan.count(full)):
            _specific(plan, how, what_copies=1 + number % 2, how=how)
    for _ in range(plan.count(4)):
        what = plan.draw(plan.concept(), "png")
        for _ in range(PLACEHOLDER_URLS if plan.scale > 0.2 else 22):
            other = pictures.drawing(plan.seed, f"x{plan.number()}", plan.concept())
            url = plan.serve(plan.url("png"), what)
            text = plan.text(other)
            plan.add(Link("placeholder", url, {"alt": text}, "dedupe", "placeholder", other.concept, picture=what.name))


def _specific(plan: Plan, kind: str, what_copies: int, how: str) -> None:
    """One picture with a long text and less specific copies of it under other URLs."""
    steady = [concept for concept in STEADY if concept in plan.others]
    concept = steady[len(plan.copies) % len(steady)] if how else ""
    what, link = plan.good(f"original_of_{kind}", form="steady" if how else "", concept=concept)
    link.texts = {"alt": plan.text(what, texts.LONG)}
    for _ in range(what_copies):
        name = what.name
        if how:
            name = f"c{plan.number()}"
            plan.copies.append((name, what.name, how))
        url = plan.url("jpg" if how else what.suffix)
        plan.routes[url] = Route(picture=name, media="image/jpeg" if how else pictures.MEDIA[what.suffix])
        plan.add(Link(kind, url, {"alt": plan.text(what, texts.SHORT)}, concept=what.concept, picture=name))


def plain(plan: Plan) -> None:
    """The rest: every concept gets its number of kept pictures, the head ones many more than balance lets through."""
    for concept in plan.others:
        for _ in range(max(0, plan.count(KEPT_PICTURES) - plan.kept.get(concept, 0))):
            plan.good("plain", concept=concept)
    for concept in plan.heads:
        for _ in range(plan.count(HEAD_PICTURES)):
            plan.good("head", concept=concept)
