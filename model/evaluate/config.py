"""Every setting of an evaluation, and the recipes that fill them."""

from dataclasses import dataclass
from typing import Literal

from model import files
from model.config import free, require

Likelihood = Literal["sum", "per_token", "lift"]  # see likelihood.py


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """A checkpoint on any number of sets by any number of tasks: CLIP sections 3 and 5."""

    root: str = "out/mini"  # local path or s3:// URL; reads root/model, writes root/evaluation
    model: str = ""  # our folder, or OpenAI's, open_clip's, Hugging Face's file or folder; "": root/model
    tokenizer: str = ""  # tokenizer.json or OpenAI's vocabulary, for weights that come without one
    activation: str = ""  # quick_gelu or gelu, for weights that do not tell
    eval_set: str = ""  # a set: a folder, NAME=FOLDER or a name, see model/evaluate/layouts.py
    sets: tuple[str, ...] = ()  # more of them
    tasks: tuple[str, ...] = ("zero_shot",)  # see model/evaluate/tasks.py
    baselines: str = ""  # of shift: a CSV of other models with columns name, accuracy, shifted
    reference: str = ""  # of shift: the baseline that relative robustness is measured from
    name: str = ""  # of the result's files for --eval-set; "": the folder's own name
    num_examples: int = 24  # right ones, and as many wrong ones, whose pictures are kept for the report
    likelihood: Likelihood = "sum"  # how a model that predicts texts scores a prompt; no other model looks at it
    batch_size: int = free(256)  # pictures or prompts that are encoded at once
    num_workers: int = free(0)  # Ray Data's actors that encode pictures; 0: this process does

    watch: bool = free(False)  # evaluate each checkpoint of a training that is going on, until it is finished
    watch_seconds: float = free(10.0)  # between two looks

    def __post_init__(self) -> None:
        require(self.num_examples >= 0, f"evaluate: num_examples must not be negative, found {self.num_examples}")
        require(self.batch_size > 0, f"evaluate: batch_size must be at least 1, found {self.batch_size}")
        require(self.num_workers >= 0, f"evaluate: num_workers must not be negative, found {self.num_workers}")
        require(self.watch_seconds > 0, f"evaluate: watch_seconds must be positive, found {self.watch_seconds}")
        require("/" not in self.name, f"evaluate: name must be a file name, found {self.name!r}")

    @property
    def specs(self) -> tuple[str, ...]:
        """All sets; "" where none is named."""
        return tuple(dict.fromkeys([*([self.eval_set] if self.eval_set or not self.sets else []), *self.sets]))

    @property
    def model_path(self) -> str:
        """Where the checkpoint is."""
        return self.model or files.join(self.root, "model")

    @property
    def folder(self) -> str:
        """Where results go: root/evaluation, for a model that is not root's own root/evaluation/models/NAME."""
        evaluation = files.join(self.root, "evaluation")
        names = self.model.rstrip("/").split("/")
        name = names[-1] if self.step is None else "-".join(names[-2:])
        return files.join(evaluation, "models", name) if self.model else evaluation

    @property
    def step(self) -> int | None:
        """Of a training's checkpoint; None for every other model."""
        name = self.model.rstrip("/").rsplit("/", 1)[-1].removeprefix("step-")
        return int(name) if name.isdecimal() and "/step-" in self.model else None


def mini() -> EvaluateConfig:
    """The mini model on pictures of an icon family that it never saw: seconds on a laptop."""
    return EvaluateConfig()


def wit() -> EvaluateConfig:
    """A large model on any sets."""
    return EvaluateConfig(root="out/wit", batch_size=512)


RECIPES = {"mini": mini, "wit": wit}
