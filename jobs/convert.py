"""Convert a model: another project's into ours, or ours into another project's. Weights only; nothing in a file is run.

    python jobs/convert.py wit --root out/openai --source ViT-B-32.pt --tokenizer tokenizer.json  # OpenAI's -> out/openai/model
    python jobs/convert.py hugging_face --root out/mini    # out/mini/model -> out/mini/export/hugging_face
    python jobs/convert.py open_clip --root out/mini       # ... -> out/mini/export/open_clip
    python jobs/convert.py onnx --root out/mini            # ... -> out/mini/export/onnx

Reads our model folder, OpenAI's TorchScript archives and state dicts, open_clip's files and folders, Hugging Face's folders.
What `wit` writes is what jobs/evaluate.py and --start-from of jobs/train.py read.
"""

from jobs._cli import entry, told
from model.formats.config import RECIPES, ConvertConfig


def main(config: ConvertConfig) -> None:
    """Convert, and say what was written where."""
    from model.formats.convert import convert

    with told(ValueError):
        done = convert(config)
    print(
        f"convert          {done.source} ({done.origin}) -> {done.target} ({config.format}), {done.num_parameters:,} parameters"
    )


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
