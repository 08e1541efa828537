"""Evaluate the finished model: zero-shot classification of a set of labelled pictures.

    python jobs/evaluate.py mini --root out/mini --eval-set out/mini/web/test
    ray job submit --working-dir . -- python jobs/evaluate.py wit --root s3://bucket/wit --eval-set s3://bucket/sets/food101

Reads root/model and a set in CLIP_benchmark's webdataset layout; writes root/evaluation/NAME.json and NAME.parquet.
Two towers rank the classes by cosines; a model that predicts texts (objective caption or bag_of_words) ranks them by how
likely their prompts are, see --likelihood.
The last line is `top1=0.NN top5=0.NN classes=N chance=0.NNN`. A result that is there already is printed, not made again.
"""

from typing import Any

from jobs._cli import entry, told
from model import files
from model.evaluate import datasets, results
from model.evaluate.config import RECIPES, EvaluateConfig
from model.evaluate.datasets import EvalSet


def evaluate(config: EvaluateConfig, eval_set: EvalSet, wanted: dict[str, Any]) -> dict[str, Any]:
    """Score the set and write the result. Imports torch, which a finished evaluation does without."""
    import torch

    from model.checkpoint import load_any
    from model.evaluate import metrics, zero_shot
    from model.objectives import scalars

    with told(ValueError):
        model, tokenizer, model_config = load_any(files.join(config.root, "model"))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    with told(datasets.BadSet):
        found = zero_shot.predict(
            model, tokenizer, eval_set, resolution=model_config.vision.image_resolution, batch_size=config.batch_size,
            num_examples=config.num_examples, rule=config.likelihood,
        )  # fmt: skip
    scores = metrics.accuracy(found.labels, found.ranked, len(eval_set.classnames))
    summary = results.summarise(eval_set, scores, wanted, scalars(model).get("logit_scale"), model_config.objective)
    return results.write(config, eval_set, summary, results.rows(found))


def main(config: EvaluateConfig) -> None:
    """Evaluate unless it is done; print the table and the last line."""
    with told(ValueError):
        eval_set = datasets.open_set(config.eval_set, config.name)
        wanted = results.identity(config, eval_set, results.model_hash(files.join(config.root, "model")))
    summary = results.finished(config, eval_set, wanted)
    if summary is not None:
        print(f"evaluate         already done: {eval_set.name}, {summary['num_pictures']:,} pictures")
    else:
        summary = evaluate(config, eval_set, wanted)
        print(results.text(summary))
    print(results.last_line(summary), flush=True)


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
