"""What we export opens in the projects that it is for, and gives our features there."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from model import checkpoint
from model.clip import CLIP
from model.config import ClipConfig, TextConfig
from model.formats.config import RECIPES
from model.formats.convert import convert
from model.tokenizer import Tokenizer
from tests.model.formats.test_foreign import RESNET, VIT
from tests.model.peers import import_open_clip, import_transformers, pairs_for, random_clip

pytestmark = pytest.mark.peers
CONFIGS = {"vit": VIT, "resnet": RESNET}
TEXTS = ["a red bicycle on a white wall", "Two dogs & a café", "it's 100% free", "", "x" * 40]


@pytest.fixture(params=CONFIGS)
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, CLIP, Tokenizer, ClipConfig]:
    """A finished model in root/model, whose vocabulary has some merges."""
    texts = ["a red bicycle on a white wall", "two dogs on a white sofa"] * 4
    tokenizer = Tokenizer.train(texts, 560, 16)
    text = TextConfig(context_length=16, vocab_size=tokenizer.vocab_size, width=128, layers=2, heads=2)
    given = CONFIGS[request.param]
    config = ClipConfig(embed_dim=24, vision=given.vision, text=text)
    model = random_clip(config, seed=1)
    checkpoint.save_model(str(tmp_path / "model"), model, tokenizer, config, {"run": "x"})
    return tmp_path, model, tokenizer, config


def exported(kind: str, root: Path) -> Path:
    config = RECIPES[kind]()
    convert(type(config)(root=str(root), format=config.format))
    return root / "export" / kind


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)).resize((270, 210))


def test_open_clip_opens_the_folder_and_the_file(trained: tuple[Path, CLIP, Tokenizer, ClipConfig]) -> None:
    open_clip = import_open_clip()
    root, model, tokenizer, config = trained
    folder = exported("open_clip", root)
    open_clip.add_model_config(folder / "wit.json")
    opened, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    by_file, _, _ = open_clip.create_model_and_transforms("wit", pretrained=str(folder / "open_clip_model.safetensors"))
    images, tokens = pairs_for(config, 4, seed=2)
    with torch.no_grad():
        wanted = model(images, tokens)
        for other in (opened, by_file):
            found = other.eval()(images, tokens)
            assert all(float((a - b).abs().max()) < 1e-5 for a, b in zip(found[:2], wanted[:2], strict=True))
    assert all(torch.equal(tensor, opened.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert transform(picture()).shape == (3, config.vision.image_resolution, config.vision.image_resolution)
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}").tokenizer(TEXTS, padding=True, truncation=True, max_length=16)
    assert np.array(theirs["input_ids"]).tolist() == tokenizer(TEXTS).tolist()


def test_hugging_face_opens_model_and_processor(trained: tuple[Path, CLIP, Tokenizer, ClipConfig]) -> None:
    transformers = import_transformers()
    root, model, tokenizer, config = trained
    if config.vision is RESNET.vision:
        with pytest.raises(ValueError, match="CLIPModel has no ResNet"):
            exported("hugging_face", root)
        return
    folder = exported("hugging_face", root)
    opened = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    given = processor(text=TEXTS, images=[picture()], return_tensors="pt", padding=True, truncation=True)
    assert given["input_ids"].tolist() == tokenizer(TEXTS).tolist()
    with torch.no_grad():
        found = opened(**given)
        texts = F.normalize(model.encode_text(tokenizer(TEXTS)), dim=-1)
        image = F.normalize(model.encode_image(given["pixel_values"]), dim=-1)
    assert float((found.text_embeds - texts).abs().max()) < 1e-5
    assert float((found.image_embeds - image).abs().max()) < 1e-5
    torch.testing.assert_close(found.logits_per_image, model.logit_scale.exp() * image @ texts.T, rtol=1e-4, atol=1e-4)


def test_both_towers_run_in_onnxruntime_for_any_batch(trained: tuple[Path, CLIP, Tokenizer, ClipConfig]) -> None:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    root, model, _, config = trained
    folder = exported("onnx", root)
    image = onnxruntime.InferenceSession(folder / "image.onnx", providers=["CPUExecutionProvider"])
    text = onnxruntime.InferenceSession(folder / "text.onnx", providers=["CPUExecutionProvider"])
    scale = float(image.get_modelmeta().custom_metadata_map["logit_scale"])
    assert scale == pytest.approx(float(model.logit_scale.detach().exp()))
    for batch in (1, 2, 7):
        images, tokens = pairs_for(config, batch, seed=batch)
        with torch.no_grad():
            wanted = model.encode_image(images).numpy(), model.encode_text(tokens).numpy()
        (image_features,) = image.run(["image_features"], {"images": images.numpy()})
        (text_features,) = text.run(["text_features"], {"tokens": tokens.numpy()})
        np.testing.assert_allclose(np.asarray(image_features), wanted[0], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(np.asarray(text_features), wanted[1], atol=1e-4, rtol=1e-4)
