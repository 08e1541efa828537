"""The mini run's own model on its set and on the digits, beside open_clip's modules and scikit-learn; MINI_ROOT is its root.

The mini image tower has three stages where open_clip's class builds four, so its parts are put together here: its stem, its first
three stages, its attention pooling at that width. Pictures are read by webdataset and made tensors by open_clip's own transform.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import webdataset
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from jobs import evaluate as job
from model.evaluate.config import EvaluateConfig
from model.tokenizer import Tokenizer
from tests.model.peers import import_open_clip

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif("MINI_ROOT" not in os.environ, reason="MINI_ROOT names no root of a finished `make mini`"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
POINT = 0.001  # a tenth of a point


@pytest.fixture(scope="module")
def mini() -> Path:
    return Path(os.environ["MINI_ROOT"]).resolve()


@pytest.fixture(scope="module")
def peer(mini: Path) -> tuple[Any, Any, Tokenizer]:
    """open_clip's model with the run's weights, its transform, and the run's tokenizer (test_tokenizer.py is about that)."""
    open_clip = import_open_clip()
    config = json.loads((mini / "model/config.json").read_text())
    vision, text = config["vision"], config["text"]
    size, width = vision["image_resolution"], vision["width"]
    shape = {"layers": [*vision["layers"], 1], "width": width, "image_size": size, "head_width": width * 32 // vision["heads"]}
    words = {name: text[name] for name in ("context_length", "vocab_size", "width", "layers", "heads")}
    model = open_clip.model.CLIP(config["embed_dim"], shape, words, quick_gelu=config["quick_gelu"])
    pool = type(model.visual.attnpool)(size // 16, width * 16, vision["heads"], config["embed_dim"])
    model.visual.layer4, model.visual.attnpool = nn.Identity(), pool
    missing, surplus = model.load_state_dict(load_file(mini / "model/model.safetensors"), strict=False)
    assert (set(missing) - {"attn_mask"}, surplus) == (set(), [])
    transform = open_clip.image_transform(size, is_train=False, mean=config["image_mean"], std=config["image_std"])
    tokenizer = Tokenizer.from_bytes((mini / "model/tokenizer.json").read_bytes())
    return model.eval(), transform, tokenizer


@torch.no_grad()
def images_of(peer: tuple[Any, Any, Tokenizer], pictures: list[Image.Image]) -> np.ndarray:
    """Features as they come.  -> [pictures, E] float32"""
    model, transform, _ = peer
    batches = [pictures[start : start + 256] for start in range(0, len(pictures), 256)]
    return torch.cat([model.encode_image(torch.stack([transform(one) for one in batch])) for batch in batches]).numpy()


def test_zero_shot_on_the_runs_own_set_equals_open_clips(mini: Path, peer: tuple[Any, Any, Tokenizer], tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, top_k_accuracy_score

    folder = mini / "web/test"
    tars = [str(path) for path in sorted(folder.glob("test/*.tar"))]
    dataset: Any = webdataset
    rows = list(dataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    features, labels = images_of(peer, [row["png"] for row in rows]), np.asarray([row["cls"] for row in rows])
    names = (folder / "classnames.txt").read_text().splitlines()
    templates = (folder / "zeroshot_classification_templates.txt").read_text().splitlines()
    model, _, tokenizer = peer
    classes = []
    for name in names:
        with torch.no_grad():
            tokens = tokenizer([template.replace("{c}", name) for template in templates])
            tokens = F.pad(tokens, (0, model.context_length - tokens.shape[1]))
            classes.append(F.normalize(F.normalize(model.encode_text(tokens), dim=-1).mean(0), dim=0).numpy())
    scores = features / np.linalg.norm(features, axis=1, keepdims=True) @ np.stack(classes).T
    job.main(EvaluateConfig(root=str(tmp_path), model=str(mini / "model"), eval_set=str(folder), name="own"))
    (path,) = tmp_path.glob("evaluation/**/own.json")
    found = json.loads(path.read_text())["values"]
    print(f"zero-shot on {len(rows)} pictures: {found}, open_clip {accuracy_score(labels, scores.argmax(1)):.5f}")
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(1)), abs=POINT)
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5), abs=POINT)
    assert found["accuracy"] > 0.2


def test_the_probe_of_the_digits_equals_open_clips_with_scikit_learn(
    mini: Path, peer: tuple[Any, Any, Tokenizer], tmp_path: Path
) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    job.main(EvaluateConfig(root=str(tmp_path), model=str(mini / "model"), sets=("digits",), tasks=("linear_probe",)))
    (path,) = tmp_path.glob("evaluation/**/digits.linear_probe.json")
    result = json.loads(path.read_text())
    digits: Any = load_digits()
    pixels = np.minimum(digits.images * 16, 255).astype(np.uint8)
    features = images_of(peer, [Image.fromarray(one).convert("RGB") for one in pixels])
    test = np.arange(len(features)) % 4 == 0
    regression = LogisticRegression(C=1 / result["strength"], tol=1e-10, max_iter=5000)
    regression.fit(features[~test].astype(np.float64), digits.target[~test])
    theirs = float(regression.score(features[test].astype(np.float64), digits.target[test]))
    print(f"probe of the digits: {result['values']}, open_clip with scikit-learn {theirs:.5f}")
    assert result["values"]["accuracy"] == pytest.approx(theirs, abs=POINT + 1e-9)
