"""Plan: everything that the small web will hold, before anything is drawn or written.

in      seed, number of links
out     drawings, copies, routes, host names and links, each link with the fate that its rows have
law     a fate here is what happens to a row by itself; what follows from other rows (the same pair twice, the same
        picture elsewhere) is worked out by truth.py
"""

from dataclasses import dataclass, field

from infra.mini import glyphs, pictures, texts
from infra.mini.chance import rng
from infra.mini.pictures import Drawing

FULL_LINKS = 20_000
NUM_HEADS = 5
HEAD_PICTURES = 300
KEPT_PICTURES = 85
WORDS = ("garden", "street", "museum", "school", "market", "forest", "harbor", "studio", "castle", "bakery")
HOSTS = tuple(f"{word}{number}.mini.test" for word in WORDS for number in range(1, 7))
DEAD_ADDRESS = "127.0.0.9"  # loopback too, but nobody listens


@dataclass(frozen=True, slots=True)
class Route:
    """What the server answers under one URL."""

    picture: str = ""  # name of the drawing or copy whose bytes are the body
    body: bytes = b""  # or the bytes themselves
    status: int = 200
    media: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    behavior: str = ""  # see server.py


@dataclass(slots=True)
class Link:
    """An image link of a page, with its texts and what becomes of them."""

    kind: str
    url: str  # canonical and absolute; as written where it is a bad one
    texts: dict[str, str]  # attribute -> text after cleaning
    stage: str = "kept"
    reason: str | None = None
    concept: str = ""
    picture: str = ""  # whose bytes are downloaded in the end; "" where no picture arrives
    written: str = ""  # the URL as the page has it; "" for the canonical one
    raw: dict[str, str] = field(default_factory=dict)  # attribute -> text as the HTML has it, where not the escaped text
    extra: dict[str, str] = field(default_factory=dict)  # further attributes of the img, unescaped
    no_src: bool = False  # the URL stands in `extra` only
    src: str = ""  # what src says where the URL stands elsewhere
    archive: str = ""  # "warc", "wat" or "" for either
    page_host: str = ""  # where the page must be; "" for anywhere
    flavor: str = ""  # what is particular about the page, see pages.py
    head: bool = False


class Plan:
    """Collects the web's content. `count` scales numbers of the full web down, never to zero."""

    def __init__(self, seed: int, num_links: int):
        self.seed, self.scale = seed, num_links / FULL_LINKS
        self.drawings: list[Drawing] = []
        self.copies: list[tuple[str, str, str]] = []  # name, name of the original, how
        self.routes: dict[str, Route] = {}
        self.hosts: dict[str, str] = dict.fromkeys(HOSTS, "127.0.0.1")
        self.links: list[Link] = []
        self.never: list[str] = []  # URLs that must not be asked for
        self.kept: dict[str, int] = {}  # pictures that are kept, by concept
        names = glyphs.concepts()
        heads = rng(seed, "heads").permutation(len(names))[:NUM_HEADS]
        self.heads = tuple(names[i] for i in sorted(heads))
        self.others = tuple(name for name in names if name not in self.heads)
        self._next = self._turn = 0
        self.random = rng(seed, "plan")

    def count(self, full: int) -> int:
        """How many of something that the full web has `full` of."""
        return max(1, round(full * self.scale))

    def number(self) -> int:
        """A new number."""
        self._next += 1
        return self._next

    def concept(self) -> str:
        """The next concept that is not a head one, in turn."""
        self._turn += 1
        return self.others[self._turn % len(self.others)]

    def host(self, name: str, address: str = "127.0.0.1") -> str:
        """A host of its own, entered into the hosts file."""
        full = f"{name}.mini.test"
        self.hosts[full] = address
        return full

    def any_host(self) -> str:
        """One of the hosts that have everything."""
        return HOSTS[self.random.integers(len(HOSTS))]

    def draw(self, concept: str, form: str = "") -> Drawing:
        """A new picture."""
        what = pictures.drawing(self.seed, f"p{self.number()}", concept, form)
        self.drawings.append(what)
        return what

    def url(self, suffix: str, host: str = "", folder: str = "pics") -> str:
        """A new URL."""
        return f"http://{host or self.any_host()}/{folder}/{self.number():05d}.{suffix}"

    def serve(self, url: str, what: Drawing, **options: object) -> str:
        """Serve the picture there, with its own media type unless `options` say otherwise."""
        media = pictures.MEDIA[what.suffix]
        self.routes[url] = Route(**{"picture": what.name, "media": media, **options})  # type: ignore[arg-type]
        return url

    def text(self, what: Drawing, templates: tuple[str, ...] = texts.USUAL) -> str:
        """A caption of the picture."""
        return texts.caption(templates, what.concept, what.color, what.background, self.random)

    def add(self, link: Link) -> Link:
        """Put the link on some page."""
        self.links.append(link)
        return link

    def good(self, kind: str, *, form: str = "", concept: str = "", host: str = "", folder: str = "pics") -> tuple[Drawing, Link]:
        """A new picture under a new URL with a caption, kept; the caller may change the link or the route."""
        what = self.draw(concept or self.concept(), form)
        url = self.serve(self.url(what.suffix, host, folder), what)
        link = Link(kind, url, {"alt": self.text(what)}, concept=what.concept, picture=what.name, head=what.concept in self.heads)
        self.kept[what.concept] = self.kept.get(what.concept, 0) + 1
        return what, self.add(link)

    def lost(self, kind: str, reason: str, url: str, **fields: object) -> Link:
        """A link with a good text whose picture never arrives."""
        what = pictures.drawing(self.seed, f"x{self.number()}", self.concept())  # for its words only
        alt = {"alt": self.text(what)}
        return self.add(Link(kind, url, alt, "download", reason, what.concept, **fields))  # type: ignore[arg-type]
