"""Every setting of an evaluation, and the recipes that fill them."""

from dataclasses import dataclass
from typing import Literal

from model.config import free, require

Likelihood = Literal["sum", "per_token", "lift"]  # see likelihood.py


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Zero-shot classification of one evaluation set: CLIP section 3.1."""

    root: str = "out/mini"  # local path or s3:// URL; reads root/model, writes root/evaluation
    eval_set: str = ""  # folder in CLIP_benchmark's webdataset layout, local or s3://
    name: str = ""  # of the result's files; "": the folder's own name
    num_examples: int = 24  # right ones, and as many wrong ones, whose pictures are kept for the report
    likelihood: Likelihood = "sum"  # how a model that predicts texts scores a prompt; no other model looks at it
    batch_size: int = free(256)  # pictures or prompts that are encoded at once

    def __post_init__(self) -> None:
        require(self.num_examples >= 0, f"evaluate: num_examples must not be negative, found {self.num_examples}")
        require(self.batch_size > 0, f"evaluate: batch_size must be at least 1, found {self.batch_size}")
        require("/" not in self.name, f"evaluate: name must be a file name, found {self.name!r}")


def mini() -> EvaluateConfig:
    """The mini model on pictures of an icon family that it never saw: seconds on a laptop."""
    return EvaluateConfig()


def wit() -> EvaluateConfig:
    """Any set in CLIP_benchmark's layout."""
    return EvaluateConfig(root="out/wit", batch_size=512)


RECIPES = {"mini": mini, "wit": wit}
