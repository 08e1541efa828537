"""Every setting of the dataset, a frozen class for each stage, and the recipes that fill them.

Defaults are CLIP's where the paper names a value. A field whose metadata says `rows=False` does not change the rows
that come out (workers, speed) and is therefore no part of a fingerprint.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal


def free(default: Any) -> Any:
    """A field that may change between two runs on one root: it does not change the rows."""
    return field(default=default, metadata={"rows": False})


def rows_fields(config: Any) -> dict[str, Any]:
    """The fields of `config` that decide what the rows are, as JSON values; none where there is no config."""
    if config is None:
        return {}
    return {
        f.name: rows_fields(getattr(config, f.name)) if is_dataclass(getattr(config, f.name)) else getattr(config, f.name)
        for f in fields(config)
        if f.metadata.get("rows", True)
    }


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition`: for the checks of __post_init__."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueriesConfig:
    """The query list: CLIP section 2.2.

    What the paper leaves open is MetaCLIP's where it names a number: max_bigrams, min_title_views, the head lemma of a synset.
    Paths do not count as settings: the files' content does, see pipeline/queries.py.
    """

    dump_files: tuple[str, ...] = free(())  # Wikipedia's pages-articles XML, best the multistream .bz2
    view_files: tuple[str, ...] = free(())  # page views, hourly or "pageview complete"; titles need them and dump_files
    text_files: tuple[str, ...] = free(())  # plain text, a document a line, .gz and .bz2 too: words and bigrams, as of dumps
    concept_files: tuple[str, ...] = free(())  # queries given by hand, one a line
    wordnet_dir: str = free("/usr/share/wordnet")  # WordNet's own database files; "" leaves WordNet out
    wordnet_lemmas: Literal["first", "all"] = "first"  # of a synset
    language: str = "en"  # of the page views: the wiki's code
    min_word_count: int = 100
    max_bigrams: int = 100_646  # by PMI, among those seen min_bigram_count times
    min_bigram_count: int = 100
    min_title_views: int = 70  # of an article and its redirects, over all view_files
    max_queries: int = 500_000
    order: tuple[str, ...] = ("concept", "word", "bigram", "wordnet", "title")  # who stays where there are too many
    max_page_chars: int = 2 << 20  # longer pages are left out and counted: MediaWiki allows 2 MiB
    num_buckets: int = 256  # of counts: a bucket of all parts must fit into a worker's memory
    piece_bytes: int = free(32 << 20)  # of a file as stored: what one worker counts at a time

    def __post_init__(self) -> None:
        require(self.max_queries > 0, f"queries: max_queries must be at least 1, found {self.max_queries}")
        require(self.min_word_count > 0, f"queries: min_word_count must be at least 1, found {self.min_word_count}")
        require(self.min_bigram_count > 0, f"queries: min_bigram_count must be at least 1, found {self.min_bigram_count}")
        require(self.max_bigrams >= 0, f"queries: max_bigrams must not be negative, found {self.max_bigrams}")
        require(self.min_title_views > 0, f"queries: min_title_views must be at least 1, found {self.min_title_views}")
        require(0 < self.num_buckets <= 65_536, f"queries: num_buckets must be 1 to 65,536, found {self.num_buckets}")
        require(self.piece_bytes > 0, f"queries: piece_bytes must be at least 1, found {self.piece_bytes}")
        require(self.max_page_chars > 0, f"queries: max_page_chars must be at least 1, found {self.max_page_chars}")
        kinds = ("bigram", "concept", "title", "word", "wordnet")
        require(tuple(sorted(self.order)) == kinds, f"queries: order must name {', '.join(kinds)} once each, found {self.order}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlConfig:
    """Which texts are worth keeping."""

    min_chars: int = 5
    max_chars: int = 1000
    max_repeat: int = 8  # the same character more often than this in a row: repeated_chars
    language: str = "en"  # ISO 639-1; "" keeps every language

    def __post_init__(self) -> None:
        require(
            0 < self.min_chars <= self.max_chars,
            f"crawl: 0 < min_chars <= max_chars must hold, found min_chars={self.min_chars} max_chars={self.max_chars}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchConfig:
    """How texts and queries are compared, and into how many buckets of hosts the rows are cut."""

    normalizer: Literal["wit", "metaclip"] = "wit"
    num_buckets: int = 256  # of hosts; each becomes one part of the download

    def __post_init__(self) -> None:
        require(self.num_buckets > 0, f"match: num_buckets must be at least 1, found {self.num_buckets}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceConfig:
    """CLIP section 2.2: up to 20,000 pairs per query."""

    mode: Literal["cap", "soft"] = "cap"  # cap: CLIP's "up to"; soft: MetaCLIP's probability
    max_per_query: int = 20_000  # t
    oversample: float = 1.5  # keep so many times more than needed, for what the download will lose
    seed: int = 0
    num_query_buckets: int = 16  # of queries, in which counts and draws meet; changes no pair

    def __post_init__(self) -> None:
        require(self.num_query_buckets > 0, f"balance: num_query_buckets must be at least 1, found {self.num_query_buckets}")
        require(self.max_per_query > 0, f"balance: max_per_query must be at least 1, found {self.max_per_query}")
        require(self.oversample >= 1, f"balance: oversample must be at least 1, found {self.oversample}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadConfig:
    """How pictures are fetched and made small. Names as in img2dataset where it has them."""

    engine: Literal["wit", "img2dataset"] = "wit"  # img2dataset: its own code, see pipeline/engine.py for what that gives up
    img2dataset_python: str = free("")  # the interpreter that has it
    image_size: int = 256  # px
    resize_mode: Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"] = "keep_ratio"
    resize_only_if_bigger: bool = True
    encode_quality: int = 95
    min_image_size: int = 32  # px, the shorter side as served: too_small
    max_aspect_ratio: float = 4.0  # longer over shorter side: aspect
    max_image_pixels: int = 89_478_485  # from the header, before any decode: bomb
    max_decode_bytes: int = 400_000_000  # memory that decoding one picture may take: bomb
    decode_seconds: float = 10.0  # of CPU, for one picture: decode
    max_image_bytes: int = 20_000_000  # too_large
    timeout_seconds: float = 30.0  # the whole of one attempt, redirects included
    connect_timeout_seconds: float = 10.0
    min_bytes_per_second: float = 1000.0  # slower than this over stall_seconds: timeout
    stall_seconds: float = 10.0
    max_redirects: int = 5
    max_retries: int = 2  # of what may succeed next time: see pipeline/retries.py
    retry_seconds: float = 1.0  # first pause; doubles
    max_host_failures: int = 20  # attempts in a row that a host left unanswered: the rest of its URLs is not tried
    max_host_wait_seconds: float = 3600.0  # Crawl-delays added up, of one host in one part: what would take longer is `robots`
    pairs_per_part: int = 10_000  # a part's pictures are in memory until it is written
    robots: bool = True
    user_agent: str = "wit-bot/1.0"
    contact_url: str = ""  # put into the user agent: who runs this; required outside the mini recipe
    disallowed_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "none")
    concurrency: int = free(256)  # connections of one worker
    concurrency_per_host: int = free(4)
    host_delay_seconds: float = free(0.0)
    control_hosts: tuple[str, ...] = free(("example.com", "www.iana.org", "www.wikipedia.org", "www.google.com"))  # see outage.py
    outage_patience_seconds: float = free(600.0)  # how long a part waits for this machine's network to come back
    num_decoders: int = free(1)  # processes of one worker that work on pixels

    def __post_init__(self) -> None:
        require(self.image_size > 0, f"download: image_size must be at least 1 px, found {self.image_size}")
        require(1 <= self.encode_quality <= 100, f"download: encode_quality must be 1 to 100, found {self.encode_quality}")
        require(self.pairs_per_part > 0, f"download: pairs_per_part must be at least 1, found {self.pairs_per_part}")
        require(self.concurrency > 0, f"download: concurrency must be at least 1, found {self.concurrency}")
        require(self.num_decoders > 0, f"download: num_decoders must be at least 1, found {self.num_decoders}")
        require(self.decode_seconds > 0, f"download: decode_seconds must be above 0, found {self.decode_seconds}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniDownloadConfig(DownloadConfig):
    """The download of the small web on loopback. Only the mini recipe has these two fields."""

    hosts_file: str = free("")  # hosts(5): the only names that resolve; the addresses in it are exempt from the address check
    hosts_port: int = free(0)  # port that the hosts of hosts_file listen on, whatever the URL says


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """How pictures that img2dataset fetched are taken in; they are not resized."""

    encode_quality: int = 95  # of those that cannot stay as they are
    min_image_size: int = 32  # px, the shorter side as stored: too_small
    max_aspect_ratio: float = 4.0
    max_image_pixels: int = 89_478_485
    max_image_bytes: int = 20_000_000  # a longer member is not read


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupeConfig:
    """When two pictures are the same."""

    max_distance: int = 4  # bits of the 64-bit perceptual hash
    max_color_distance: int = (
        40  # of 255, largest difference of a grid cell: the same drawing in another colour is another picture
    )
    max_urls_per_image: int = 20  # more URLs than this with the very same bytes: placeholder
    num_buckets: int = 64  # of hash bands
    evaluation_sets: tuple[str, ...] = free(())  # folders or tars of pictures whose near copies leave; their content counts

    def __post_init__(self) -> None:
        require(0 <= self.max_distance <= 15, f"dedupe: max_distance must be 0 to 15 bits, found {self.max_distance}")
        require(self.num_buckets > 0, f"dedupe: num_buckets must be at least 1, found {self.num_buckets}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardConfig:
    """How pairs are mixed into shards."""

    pairs_per_shard: int = 10_000
    parts_per_group: int = 4  # image parts that are read side by side and dealt into shards
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.pairs_per_shard > 0, f"shard: pairs_per_shard must be at least 1, found {self.pairs_per_shard}")
        require(self.parts_per_group > 0, f"shard: parts_per_group must be at least 1, found {self.parts_per_group}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How the work is done; nothing here changes a row."""

    num_workers: int = 0  # actors of a stage; 0: as many as the cluster has CPUs
    verify: Literal["hash", "size"] = "size"  # how a finished part is checked when a run starts
    dropped_sample: int = 100  # dropped rows kept a part and reason
    max_restarts: int = 2  # of a worker that died, and of the part that it held


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """A whole dataset build."""

    root: str = "out/mini"  # local path or s3:// URL
    archives: tuple[str, ...] = ()  # WAT or WARC files, folders of them or of HTML, *.paths files; local, s3:// or https://
    retry_failed: bool = free(False)  # try again the downloads that failed and may succeed by now
    tombstones: tuple[str, ...] = free(())  # files of jobs/remove.py of other roots; this root's own counts always
    queries: QueriesConfig = field(default_factory=QueriesConfig)
    crawl: CrawlConfig = field(default_factory=CrawlConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    shard: ShardConfig = field(default_factory=ShardConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniConfig(DatasetConfig):
    """The mini recipe's own type: its download may be pointed at the small web on loopback."""

    download: MiniDownloadConfig = field(default_factory=MiniDownloadConfig)


def mini() -> MiniConfig:
    """The smallest end-to-end run: minutes on a laptop, the small web of infra/mini."""
    return MiniConfig(
        queries=QueriesConfig(min_word_count=20, min_bigram_count=20, max_bigrams=200, num_buckets=4),
        match=MatchConfig(num_buckets=8),
        balance=BalanceConfig(max_per_query=120, oversample=1.25, num_query_buckets=2),
        download=MiniDownloadConfig(
            image_size=64, min_image_size=24, max_image_bytes=2_000_000, max_image_pixels=10_000_000, timeout_seconds=8.0,
            connect_timeout_seconds=2.0, stall_seconds=2.0, max_retries=2, retry_seconds=0.1, concurrency_per_host=16,
            contact_url="http://operator.mini.test/bot",
        ),
        dedupe=DedupeConfig(num_buckets=4),
        shard=ShardConfig(pairs_per_shard=1000, parts_per_group=4),
        run=RunConfig(verify="hash", dropped_sample=1_000_000),
    )  # fmt: skip


def pilot() -> DatasetConfig:
    """One or a few archive files on one machine: to see the funnel before the bill."""
    return DatasetConfig(root="out/pilot", match=MatchConfig(num_buckets=16), run=RunConfig(verify="hash"))


def wit() -> DatasetConfig:
    """The paper's dataset: 500,000 queries, up to 20,000 pairs each, 400 million pairs."""
    return DatasetConfig(root="out/wit", match=MatchConfig(num_buckets=1024), dedupe=DedupeConfig(num_buckets=512))


RECIPES = {"mini": mini, "pilot": pilot, "wit": wit}
