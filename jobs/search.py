"""Search what jobs/embed.py embedded: by a text, or by a picture.

    python jobs/search.py mini --root out/mini --text "a red heart"
    python jobs/search.py mini --root out/mini --image photo.jpg --count 5

Prints a line for each hit, best first: cosine, key, text. From Python:

    from jobs.search import RECIPES, Asker
    from dataclasses import replace
    print(Asker(RECIPES["mini"]()).text("a red heart")[0])
"""

from dataclasses import dataclass

import numpy as np

from jobs._cli import entry, told
from model import embed, files
from model.collection import BadCollection
from model.config import require
from model.evaluate.config import EvaluateConfig
from model.search import Hit, Search
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """A question to a collection."""

    root: str = "out/mini"  # local path or s3:// URL; reads root/model and root/embeddings
    name: str = "6_shards-images"  # folder under root/embeddings
    text: str = ""  # what to look for: a text,
    image: str = ""  # or a picture's file
    count: int = 10
    tokenizer: str = ""  # as jobs/embed.py was told
    activation: str = ""

    def __post_init__(self) -> None:
        require(self.count > 0, f"search: count must be at least 1, found {self.count}")


class Asker:
    """A collection with the model that it was embedded by."""

    def __init__(self, config: SearchConfig):
        from model.evaluate.encoders import load
        from model.evaluate.results import model_hash

        self.config = config
        self.search = Search(files.join(config.root, "embeddings", config.name))
        model = EvaluateConfig(
            root=config.root, model=self.search.manifest["checkpoint"], tokenizer=config.tokenizer, activation=config.activation
        )
        if model_hash(model) != self.search.manifest["model"]:
            raise BadCollection(
                f"{self.search.folder} was embedded by another model than {model.model_path}; run jobs/embed.py again"
            )
        self.encoder = load(model)

    def text(self, text: str) -> list[Hit]:
        """What fits a text best."""
        embed.check_two_towers(self.encoder)
        return self.search.nearest(self.encoder.texts([text])[0], self.config.count)

    def image(self, data: bytes) -> list[Hit]:
        """What is most like a picture."""
        found = embed.decode(data, self.encoder.resolution)
        if isinstance(found, str):
            raise BadCollection(f"search: {found}")
        from model.evaluate.datasets import preprocess

        features, _ = self.encoder.images(np.stack([preprocess(found, self.encoder.resolution)]))
        return self.search.nearest(features[0], self.config.count)


def mini() -> SearchConfig:
    """The mini dataset's pictures."""
    return SearchConfig()


def wit() -> SearchConfig:
    """Any collection that was embedded."""
    return SearchConfig(root="out/wit")


RECIPES = {"mini": mini, "wit": wit}


def main(config: SearchConfig) -> None:
    """Ask, and print the hits."""
    if bool(config.text) == bool(config.image):
        raise InputError("search: expected --text or --image, and one of them")
    try:
        picture = files.read(config.image) if config.image else b""
    except FileNotFoundError:
        raise InputError(f"search: {config.image} is not there") from None
    with told(ValueError):
        asker = Asker(config)
        hits = asker.image(picture) if config.image else asker.text(config.text)
    for hit in hits:
        line = f"{hit.score:6.3f}  {hit.key}  {hit.text}".rstrip()
        print("".join(letter if letter.isprintable() else "?" for letter in line))  # names and texts are strangers'


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
