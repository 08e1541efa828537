"""What a plan is asked: the machines, the store, the prices, and what of the measurements is replaced by hand.

law     no price has a default: prices change, and a plan with an old one is wrong in silence
"""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raise InputError(message) unless `condition`: for the checks of __post_init__."""
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeConfig:
    """One kind of machine."""

    price_per_hour: float  # in any currency; all prices in the same
    cores: int = 64
    memory_gb: float = 256.0
    gpus: int = 0
    network_gbit_per_second: float = 10.0

    def __post_init__(self) -> None:
        require(self.price_per_hour >= 0, f"node: price_per_hour must not be negative, found {self.price_per_hour}")
        require(self.cores > 0, f"node: cores must be at least 1, found {self.cores}")
        require(self.memory_gb > 0, f"node: memory_gb must be above 0, found {self.memory_gb}")
        require(self.gpus >= 0, f"node: gpus must not be negative, found {self.gpus}")
        require(
            self.network_gbit_per_second > 0,
            f"node: network_gbit_per_second must be above 0, found {self.network_gbit_per_second}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig:
    """An object store's price list."""

    per_gb_month: float
    per_1000_put: float  # and LIST
    per_1000_get: float  # and HEAD
    months: float = 1.0  # that the build's folders are kept

    def __post_init__(self) -> None:
        prices = (self.per_gb_month, self.per_1000_put, self.per_1000_get, self.months)
        require(min(prices) >= 0, f"store: prices and months must not be negative, found {prices}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """The plan of jobs/build_wit.py.

    Rates come from --measured, and what --set says goes before them. A stage's fields: rows_per_second (of a core), survival
    (rows out over rows in), bytes_per_row (of a row that comes out), part_seconds (of each part, whatever its rows),
    start_seconds (of each worker, once), pool_seconds (of the stage, once), footer_bytes_per_group (of a row group).
    """

    node: NodeConfig
    store: StoreConfig
    measured: tuple[
        str, ...
    ] = ()  # finished roots, the largest last, or the JSON of an earlier plan; none: --set gives everything
    measured_cores: int = 0  # that the measured runs had; 0: as many as workers were busy at once
    set: tuple[str, ...] = ()  # STAGE.FIELD=VALUE, as in crawl.rows_per_second=20000 download.survival=0.6
    recipe: Literal["mini", "pilot", "wit"] = "wit"  # of pipeline/config.py: buckets, sizes of parts and shards
    pairs: float = 400_000_000  # that come out
    links_per_archive: float = 0  # rows that one archive gives the crawl; 0: as measured
    queries: int = 0  # of the query list; 0: the recipe's max_queries
    queries_per_pair: float = 3.5  # that a matched pair has
    head_share: float = 0.032  # of the queries that more pairs match than the limit lets pass; MetaCLIP: 16,000 of 500,000
    fetched_bytes_per_row: float = 0  # what a picture is over the wire, failures included; 0: 4 times what is kept of it
    archive_bytes_per_row: float = 400.0  # of a compressed archive for each link in it
    deadline_hours: float = 72.0
    max_nodes: int = 10_000
    tasks_per_second: float = 31.0  # that Ray Data starts on actors in a cluster
    json: str = ""  # where the plan is written too, for programs
    utilisation: float = 0.8  # share of the cores' time that does the work: interruptions, retries, uneven parts

    def __post_init__(self) -> None:
        require(self.pairs >= 1, f"plan: pairs must be at least 1, found {self.pairs}")
        require(self.deadline_hours > 0, f"plan: deadline_hours must be above 0, found {self.deadline_hours}")
        require(0 < self.utilisation <= 1, f"plan: utilisation must be above 0 and at most 1, found {self.utilisation}")
        require(self.max_nodes > 0, f"plan: max_nodes must be at least 1, found {self.max_nodes}")
        require(self.tasks_per_second > 0, f"plan: tasks_per_second must be above 0, found {self.tasks_per_second}")
        require(self.queries_per_pair > 0, f"plan: queries_per_pair must be above 0, found {self.queries_per_pair}")
        require(0 <= self.head_share <= 1, f"plan: head_share must be from 0 to 1, found {self.head_share}")
        sizes = (self.links_per_archive, self.queries, self.fetched_bytes_per_row, self.archive_bytes_per_row)
        require(min(sizes) >= 0 and self.measured_cores >= 0, f"plan: sizes and counts must not be negative, found {sizes}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckConfig:
    """Predict a finished run from another one, or from half of itself, and print both."""

    against: str  # the root whose run is predicted
    measured: tuple[str, ...] = ()  # the roots that the rates come from; none: half of the parts of `against`, for the other half
    workers: int = 0  # of the run that is predicted; 0: as many as were busy at once
    recipe: Literal["mini", "pilot", "wit"] = "mini"  # both were made with
    queries_per_pair: float = 3.5
    head_share: float = 0.032
    json: str = ""  # where the comparison is written too


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkConfig:
    """How ranks are joined: a ring of all of them, as fast as its slowest link."""

    gpus_per_node: int = 8
    inside_gbytes_per_second: float = 300.0  # of a rank's ring inside a node (NVLink)
    between_gbytes_per_second: float = 0.0  # of a node to the next, all its cards together; 0: --node.network-gbit-per-second
    latency_seconds: float = 15e-6  # of one message of a ring

    def __post_init__(self) -> None:
        require(self.gpus_per_node > 0, f"links: gpus_per_node must be at least 1, found {self.gpus_per_node}")
        require(
            self.inside_gbytes_per_second > 0 and self.between_gbytes_per_second >= 0,
            f"links: rates must not be negative, found {self.inside_gbytes_per_second} and {self.between_gbytes_per_second}",
        )
        require(self.latency_seconds >= 0, f"links: latency_seconds must not be negative, found {self.latency_seconds}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPlanConfig:
    """The plan of jobs/train.py."""

    node: NodeConfig
    recipe: str = "vit_b_32"  # of model/recipes.py
    pairs: float = 400_000_000  # of the dataset: one epoch
    epochs: float = 32
    global_batch: int = 0  # 0: the recipe's
    num_gpus: tuple[int, ...] = (8, 32, 64, 128, 256)
    peak_tflops: float = 989.0  # of one GPU in the towers' precision, dense
    mfu: float = 0.35  # of the towers' forward and backward alone, on one GPU
    pairs_per_second: float = 0  # measured on one GPU, in place of mfu; 0: not measured
    links: LinkConfig = field(default_factory=LinkConfig)
    overlap: float = 0.0  # share of the gradients' reduction that hides behind the backward pass; model/gradients.py: none
    slowest_rank: float = 1.05  # the slowest rank's time over the mean's: every step waits for it
    decoded_pairs_per_core: float = 1500.0  # a second, of the loader
    bytes_per_pair: float = 25_000  # of a shard
    checkpoint_seconds: float = 2.0  # that each checkpoint takes from the steps
    json: str = ""  # where the plan is written too

    def __post_init__(self) -> None:
        require(self.node.gpus > 0, f"plan: a training node needs GPUs, found --node.gpus {self.node.gpus}")
        require(0 < self.mfu <= 1, f"plan: mfu must be above 0 and at most 1, found {self.mfu}")
        require(0 <= self.overlap <= 1, f"plan: overlap must be from 0 to 1, found {self.overlap}")
        require(self.slowest_rank >= 1, f"plan: slowest_rank must be at least 1, found {self.slowest_rank}")
        require(self.pairs >= 1 and self.epochs > 0, f"plan: pairs and epochs must be above 0, found {self.pairs}, {self.epochs}")
        require(bool(self.num_gpus) and min(self.num_gpus) > 0, f"plan: num_gpus must be at least 1, found {self.num_gpus}")
        sizes = (self.peak_tflops, self.decoded_pairs_per_core, self.bytes_per_pair)
        require(min(sizes) > 0, f"plan: peak_tflops, decoded_pairs_per_core, bytes_per_pair must be above 0, found {sizes}")
        others = (self.pairs_per_second, self.global_batch, self.checkpoint_seconds)
        require(min(others) >= 0, f"plan: rates, batches and seconds must not be negative, found {others}")
