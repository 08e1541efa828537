"""Every setting of a model and of its training, frozen classes. The recipes that fill them: model/recipes.py.

Defaults are the paper's (CLIP, Radford et al. 2021, tables 18 to 20) where it names a value. Names of the towers'
settings are those of OpenAI's release. A field whose metadata says `result=False` does not change the weights that come
out (where files lie, how often a line is printed) and is no part of a run's name.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's release, RGB, of pixels in [0, 1]
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_LOGIT_SCALE = math.log(100.0)  # CLIP section 2.5
RESNET_EXPANSION = 4  # channels that leave a bottleneck over channels inside it

Objective = Literal["contrastive", "sigmoid", "contrastive_bag_of_words", "bag_of_words", "caption"]  # see model.objectives


def free(default: Any) -> Any:
    """A field that may change between two runs of the same name: it does not change the weights."""
    return field(default=default, metadata={"result": False})


def result_fields(config: Any) -> dict[str, Any]:
    """The fields of `config` that decide what the weights are, as JSON values; a class is told by its name."""
    values = {
        f.name: result_fields(value) if is_dataclass(value := getattr(config, f.name)) else value
        for f in fields(config)
        if f.metadata.get("result", True)
    }
    return {"class": type(config).__name__, **values}


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition`: for the checks of __post_init__."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig:
    """A Vision Transformer: CLIP section 2.4."""

    image_resolution: int = 224  # px
    patch_size: int = 32  # px
    width: int = 768
    layers: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        require(
            self.image_resolution % self.patch_size == 0,
            f"vit: image_resolution must be a multiple of patch_size, found {self.image_resolution} and {self.patch_size}",
        )
        require(self.width % self.heads == 0, f"vit: width must be a multiple of heads, found {self.width} and {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """The paper's ResNet: three-convolution stem, blur pools, attention pool. Channels double from stage to stage."""

    image_resolution: int = 224  # px
    layers: tuple[int, ...] = (3, 4, 6, 3)  # bottlenecks in each stage; the first stage keeps its size, each other halves it
    width: int = 64  # channels after the stem
    heads: int = 32  # of the attention pool

    def __post_init__(self) -> None:
        require(len(self.layers) > 0 and min(self.layers) > 0, f"resnet: each stage needs a bottleneck, found {self.layers}")
        require(
            self.image_resolution % self.stride == 0,
            f"resnet: image_resolution must be a multiple of {self.stride}, found {self.image_resolution}",
        )
        require(self.width % 2 == 0, f"resnet: width must be even, found {self.width}")
        require(
            self.output_width % self.heads == 0,
            f"resnet: the final width {self.output_width} must be a multiple of heads, found {self.heads}",
        )

    @property
    def stride(self) -> int:
        """Pixels of the image along one side of a cell of the last feature map."""
        return 4 * 2 ** (len(self.layers) - 1)

    @property
    def output_width(self) -> int:
        """Channels after the last stage."""
        return self.width * RESNET_EXPANSION * 2 ** (len(self.layers) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """The text transformer: CLIP section 2.4."""

    context_length: int = 77  # tokens, SOT and EOT included
    vocab_size: int = 49_408  # at most; a small text yields fewer entries
    width: int = 512
    layers: int = 12
    heads: int = 8

    def __post_init__(self) -> None:
        require(self.context_length >= 3, f"text: context_length must be at least 3, found {self.context_length}")
        require(self.width % self.heads == 0, f"text: width must be a multiple of heads, found {self.width} and {self.heads}")
        require(self.vocab_size > 514, f"text: vocab_size must be above 514 (bytes and marks), found {self.vocab_size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """Two towers and the width of the space that they share; what they are trained for decides what else there is."""

    objective: Objective = "contrastive"
    embed_dim: int = 512
    vision: VitConfig | ResNetConfig = field(default_factory=VitConfig)
    text: TextConfig = field(default_factory=TextConfig)
    quick_gelu: bool = True  # x sigmoid(1.702 x) in every transformer, as OpenAI's; false: GELU, as most of open_clip's models

    def to_json(self) -> str:
        """The content of a model folder's config.json."""
        vision = {"kind": "vit" if isinstance(self.vision, VitConfig) else "resnet", **asdict(self.vision)}
        towers = {"embed_dim": self.embed_dim, "vision": vision, "text": asdict(self.text)}
        values = {"format": 1, "objective": self.objective, **towers, "quick_gelu": self.quick_gelu}
        return json.dumps({**values, "image_mean": IMAGE_MEAN, "image_std": IMAGE_STD}, indent=1)

    @classmethod
    def from_json(cls, content: str) -> "ClipConfig":
        """The configuration in a config.json; contrastive where none is named. ValueError where it is not one of ours."""
        try:
            values = json.loads(content)
            vision = dict(values["vision"])
            kind = {"vit": VitConfig, "resnet": ResNetConfig}[vision.pop("kind")]
            if "layers" in vision and isinstance(vision["layers"], list):
                vision["layers"] = tuple(vision["layers"])
            objective = values.get("objective", "contrastive")
            require(
                objective in get_args(Objective),
                f"config.json: expected an objective of {', '.join(get_args(Objective))}, found {objective!r}",
            )
            quick_gelu = values.get("quick_gelu", True)  # models of before this setting have it
            text = TextConfig(**values["text"])
            towers = {"embed_dim": values["embed_dim"], "vision": kind(**vision), "text": text}
            return cls(objective=objective, quick_gelu=quick_gelu, **towers)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"config.json: expected embed_dim, vision (kind vit or resnet) and text, found {error!r}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig:
    """How the towers are worked out: seconds and memory, not values (beyond rounding). CLIP section 2.5."""

    activation_checkpointing: bool = False  # keep each block's input only, work the rest out again on the way back
    channels_last: bool = True  # memory order of a ResNet's images, weights and activations
    fused_attention: bool = True  # PyTorch's scaled_dot_product_attention; false: step by step
    compile: bool = False  # torch.compile both towers


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What a batch is made of, and how its making is kept off the critical path."""

    crop_min_side: float = 0.9  # of the shorter side; the paper's "random square crop", whose range it does not tell
    num_lanes: int = 64  # streams that a batch is taken from; a multiple of the ranks
    window_shards: int = 8  # shards of a lane that are shuffled together, and are open together
    vocabulary: str = ""  # OpenAI's bpe_simple_vocab_16e6.txt.gz or a tokenizer.json; "": learnt from the dataset's texts
    tokenizer_texts: int = 1_000_000  # the vocabulary is learnt from the first so many
    cache_dir: str = free("")  # copies of remote shards; "": a folder of the system's temporary directory
    cache_bytes: int = free(64_000_000_000)  # of those copies, on each rank
    pixel_cache_bytes: int = free(0)  # decoded pictures kept in memory, on each rank
    num_threads: int = free(4)  # of each rank's loader
    prefetch_batches: int = free(4)  # made ahead of use
    copy_ahead_batches: int = free(64)  # whose remote shards are copied ahead of use

    def __post_init__(self) -> None:
        require(0 < self.crop_min_side <= 1, f"data: crop_min_side must be above 0 and at most 1, found {self.crop_min_side}")
        require(self.num_lanes > 0, f"data: num_lanes must be at least 1, found {self.num_lanes}")
        require(self.window_shards > 0, f"data: window_shards must be at least 1, found {self.window_shards}")
        require(self.num_threads > 0, f"data: num_threads must be at least 1, found {self.num_threads}")
        require(self.prefetch_batches > 0, f"data: prefetch_batches must be at least 1, found {self.prefetch_batches}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW, warm-up and cosine: CLIP section 2.5, tables 18 to 20."""

    learning_rate: float = 5e-4
    beta1: float = 0.9
    beta2: float = 0.98  # 0.999 for the ResNets
    epsilon: float = 1e-6  # 1e-8 for the ResNets
    weight_decay: float = 0.2  # of all weights that are not gains or biases
    num_warmup_steps: int = 2000
    moments: Literal["float32", "bfloat16", "float16"] = "float32"  # as they are kept; half precision is rounded by chance
    text_weights: Literal["float32", "bfloat16"] = "float32"  # of the text tower's matrices; bfloat16 is rounded by chance

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optimizer: learning_rate must be above 0, found {self.learning_rate}")
        require(0 <= self.beta1 < 1, f"optimizer: beta1 must be at least 0 and below 1, found {self.beta1}")
        require(0 <= self.beta2 < 1, f"optimizer: beta2 must be at least 0 and below 1, found {self.beta2}")
        require(self.epsilon > 0, f"optimizer: epsilon must be above 0, found {self.epsilon}")
        require(self.weight_decay >= 0, f"optimizer: weight_decay must not be negative, found {self.weight_decay}")
        require(self.num_warmup_steps > 0, f"optimizer: num_warmup_steps must be at least 1, found {self.num_warmup_steps}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """What is done when training goes wrong: see model.guards."""

    non_finite: Literal["skip", "rewind", "stop"] = "skip"  # the loss or the gradient is no number
    loss_spike: Literal["off", "warn", "skip", "rewind", "stop"] = "warn"
    logit_scale: Literal["off", "warn", "rewind", "stop"] = "warn"  # pinned at 100, or below 1
    spike_deviations: float = 8.0  # of the loss from its mean
    history_steps: int = 100  # that the mean is of; earlier there are no spikes
    pinned_steps: int = 1000
    max_answers: int = 5  # skips in a row, or rewinds to one checkpoint; then the run stops
    starvation_share: float = free(0.2)  # of the time that steps wait for data, above which it is told; 1: never
    slow_rank_factor: float = free(1.5)  # a rank's own time over the median, above which it is told

    def __post_init__(self) -> None:
        require(self.spike_deviations > 0, f"guards: spike_deviations must be above 0, found {self.spike_deviations}")
        require(self.history_steps > 0, f"guards: history_steps must be at least 1, found {self.history_steps}")
        require(self.pinned_steps > 0, f"guards: pinned_steps must be at least 1, found {self.pinned_steps}")
        require(self.max_answers > 0, f"guards: max_answers must be at least 1, found {self.max_answers}")
        require(self.slow_rank_factor > 1, f"guards: slow_rank_factor must be above 1, found {self.slow_rank_factor}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A whole training run. Defaults: the paper's ViT-B/32."""

    root: str = free("out/wit")  # local path or s3:// URL; reads root/6_shards, writes root/train and root/model
    shards: str = free("")  # the dataset; "": root/6_shards
    start_from: str = free("")  # a model's folder to go on from, its positions fitted to this resolution; "": from random weights
    model: ClipConfig = field(default_factory=ClipConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig, metadata={"result": False})
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)
    global_batch: int = 32_768  # pairs
    num_samples: int = 12_800_000_000  # pairs to see in all: 32 epochs of 400 million
    seed: int = 0
    loss: Literal["softmax", "tiled"] = "softmax"  # of contrastive objectives; tiled never holds the matrix of logits
    micro_batch: int = free(0)  # pairs of a rank that are in the towers at once, the loss still sees all; 0: all of them
    precision: Literal["float32", "bfloat16"] = "float32"  # of the towers; weights, norms and logits stay float32
    text_groups: int = free(1)  # texts are encoded in so many groups of like length: saves a CPU the padding
    shard_weights: bool = free(False)  # cut blocks over the ranks (FSDP2), for towers that do not fit a GPU
    num_workers: int = free(1)  # ranks
    min_workers: int = free(0)  # ranks that it goes on with while machines are missing; 0: as many as num_workers
    cpus_per_worker: int = free(1)
    use_gpu: bool = free(False)
    checkpoint_every_steps: int = 1000  # also when each rank's BatchNorm statistics are averaged
    keep_checkpoints: int = free(2)
    save_budget: float = free(0.05)  # of the run's time that waiting for checkpoints may take; 1: wait, leave none out
    log_every_steps: int = free(100)
    track: tuple[Literal["tensorboard", "wandb"], ...] = free(("tensorboard",))  # beside events.jsonl

    def __post_init__(self) -> None:
        require(self.num_workers > 0, f"train: num_workers must be at least 1, found {self.num_workers}")
        require(
            0 <= self.min_workers <= self.num_workers,
            f"train: min_workers must be from 0 to num_workers, found {self.min_workers} and {self.num_workers}",
        )
        require(self.text_groups > 0, f"train: text_groups must be at least 1, found {self.text_groups}")
        require(self.global_batch > 0, f"train: global_batch must be at least 1, found {self.global_batch}")
        require(self.micro_batch >= 0, f"train: micro_batch must not be negative, found {self.micro_batch}")
        require(
            self.optimizer.text_weights == self.precision or self.optimizer.text_weights == "float32",
            f"train: text_weights {self.optimizer.text_weights} needs precision bfloat16, found {self.precision}",
        )
        require(
            not self.shard_weights or (self.optimizer.moments, self.optimizer.text_weights) == ("float32", "float32"),
            f"train: shard_weights needs moments and text_weights float32, found {self.optimizer.moments} and "
            f"{self.optimizer.text_weights}",
        )
        require(
            self.data.num_lanes % self.num_workers == 0,
            f"train: num_lanes must be a multiple of num_workers, found {self.data.num_lanes} and {self.num_workers}",
        )
        require(
            self.global_batch % self.data.num_lanes == 0,
            f"train: global_batch must be a multiple of num_lanes, found {self.global_batch} and {self.data.num_lanes}",
        )
        require(
            self.num_samples >= self.global_batch,
            f"train: num_samples must be at least global_batch, found {self.num_samples} and {self.global_batch}",
        )
        require(
            self.checkpoint_every_steps > 0, f"train: checkpoint_every_steps must be above 0, found {self.checkpoint_every_steps}"
        )
        require(self.keep_checkpoints > 0, f"train: keep_checkpoints must be at least 1, found {self.keep_checkpoints}")
        require(0 <= self.save_budget <= 1, f"train: save_budget must be from 0 to 1, found {self.save_budget}")
        require(self.log_every_steps > 0, f"train: log_every_steps must be at least 1, found {self.log_every_steps}")

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.num_samples // self.global_batch
