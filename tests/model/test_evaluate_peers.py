"""The job's numbers beside open_clip's own model, transform and tokenizer with plain torch and scikit-learn around them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from jobs import evaluate as job
from model import checkpoint
from model.config import ClipConfig, TextConfig
from model.evaluate import layouts
from model.evaluate.config import EvaluateConfig
from model.formats.config import RECIPES
from model.formats.convert import convert
from model.tokenizer import Tokenizer
from tests.model.evaluation_set import encode, write_tar
from tests.model.formats.test_foreign import RESNET, VIT
from tests.model.peers import import_open_clip, random_clip

pytestmark = pytest.mark.peers
POINT = 0.001  # a tenth of a point
WORDS = ("a red bicycle", "two dogs", "a white wall", "the old sofa", "no", "7 cats on it", "under a big tree", "café")


@pytest.fixture(scope="module", params=[VIT, RESNET], ids=["vit", "resnet"])
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Any]:
    """A root with a model of random weights, and open_clip's model, transform and tokenizer from the exported folder."""
    open_clip = import_open_clip()
    root = tmp_path_factory.mktemp("root")
    tokenizer = Tokenizer.train([f"a photo of the number {words}" for words in WORDS] * 4, 560, 24)
    text = TextConfig(context_length=24, vocab_size=tokenizer.vocab_size, width=128, layers=2, heads=2)
    config = ClipConfig(embed_dim=24, vision=request.param.vision, text=text)
    checkpoint.save_model(str(root / "model"), random_clip(config, seed=5), tokenizer, config, {"run": "x"})
    recipe = RECIPES["open_clip"]()
    convert(type(recipe)(root=str(root), format="open_clip"))
    folder = root / "export/open_clip"
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}").tokenizer

    def tokens(texts: list[str]) -> torch.Tensor:
        return torch.tensor(np.asarray(theirs(texts, padding="max_length", truncation=True, max_length=24)["input_ids"]))

    return root, model.eval(), transform, tokens


def values(root: Path, name: str) -> dict[str, float]:
    return json.loads((root / "evaluation" / name).read_text())["values"]


@torch.no_grad()
def test_zero_shot_equals_open_clip(peer: tuple[Path, Any, Any, Any]) -> None:
    from sklearn.datasets import load_digits
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

    root, model, transform, tokens = peer
    digits: Any = load_digits()
    rows = np.arange(0, 1797, 4)
    images = [Image.fromarray(np.minimum(digits.images[row] * 16, 255).astype(np.uint8)).convert("RGB") for row in rows]
    features = F.normalize(model.encode_image(torch.stack([transform(image) for image in images])), dim=-1)
    eval_set = layouts.open_set("digits")
    classes = []
    for names in eval_set.names:
        prompts = [template.format(c=name) for name in names for template in eval_set.templates]
        classes.append(F.normalize(F.normalize(model.encode_text(tokens(prompts)), dim=-1).mean(0), dim=0))
    logits, labels = (100 * features @ torch.stack(classes).T).numpy(), digits.target[rows]
    job.main(EvaluateConfig(root=str(root), sets=("digits",)))
    found = values(root, "digits.json")
    others = [{"model": str(root / "export/open_clip")}]
    gelu = {"activation": "quick_gelu", "tokenizer": str(root / "model/tokenizer.json")}
    others.append({"model": str(root / "export/open_clip/open_clip_model.safetensors"), **gelu})
    if "visual.proj" in model.state_dict():
        recipe = RECIPES["hugging_face"]()
        convert(type(recipe)(root=str(root), format="hugging_face"))
        others.append({"model": str(root / "export/hugging_face")})
    for other in others:
        job.main(EvaluateConfig(root=str(root), sets=("digits",), batch_size=64, **other))  # pyright: ignore[reportArgumentType]
        name = other["model"].rsplit("/", 1)[-1]
        assert values(root, f"models/{name}/digits.json") == pytest.approx(found, abs=POINT)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)), abs=POINT)
    assert found["mean_per_class"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)), abs=POINT)
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5), abs=POINT)


@torch.no_grad()
def test_retrieval_equals_open_clip(peer: tuple[Path, Any, Any, Any], tmp_path: Path) -> None:
    root, model, transform, tokens = peer
    rng = np.random.default_rng(1)
    members, images, texts = [], [], []
    for number in range(60):
        rgb = (
            rng.integers(0, 256, (int(rng.integers(2, 7)), int(rng.integers(2, 7)), 3)).astype(np.uint8).repeat(9, 0).repeat(9, 1)
        )
        own = [" ".join(rng.choice(WORDS, 3).tolist()) + f" {number} {text}" for text in range(int(rng.integers(1, 6)))]
        members += [(f"{number:03}.webp", encode(rgb, "webp")), (f"{number:03}.txt", "\n".join(own).encode())]
        images.append(transform(Image.fromarray(rgb)))
        texts += [(number, text) for text in own]
    for shard in (0, 1):
        write_tar(tmp_path / f"pairs/test/{shard}.tar", members[shard * 60 : shard * 60 + 60])
    (tmp_path / "pairs/test/nshards.txt").write_text("2")
    (tmp_path / "pairs/dataset_type.txt").write_text("retrieval")
    image_features = F.normalize(model.encode_image(torch.stack(images)), dim=-1)
    text_features = F.normalize(model.encode_text(tokens([text for _, text in texts])), dim=-1)
    scores = text_features @ image_features.T  # [texts, images]
    owner = torch.tensor([number for number, _ in texts])
    job.main(EvaluateConfig(root=str(root), sets=(str(tmp_path / "pairs"),), tasks=("retrieval",)))
    found = values(root, "pairs.retrieval.json")
    for k in (1, 5, 10):
        image_hits = (scores.topk(k, dim=1).indices == owner[:, None]).any(1)
        text_hits = (owner[scores.T.topk(k, dim=1).indices] == torch.arange(60)[:, None]).any(1)
        assert found[f"image_r{k}"] == pytest.approx(float(image_hits.float().mean()), abs=POINT)
        assert found[f"text_r{k}"] == pytest.approx(float(text_hits.float().mean()), abs=POINT)
