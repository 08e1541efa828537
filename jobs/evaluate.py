"""Evaluate a model: any checkpoint on any sets by any tasks.

    python jobs/evaluate.py mini --root out/mini --eval-set out/mini/web/test
    ray job submit --working-dir . -- python jobs/evaluate.py wit --root s3://bucket/wit --sets s3://bucket/sets/food101 \
        --tasks zero_shot linear_probe --num-workers 8

Sets: folders (the layouts: model/evaluate/layouts.py), NAME=FOLDER, or `digits`. Tasks: model/evaluate/kinds.py. --model takes
another project's checkpoint instead of root/model. Embeddings are made once for a model and a split and kept under
root/evaluation/embeddings; results are root/evaluation/SET.json, SET.parquet (zero_shot), SET.TASK.json, and _SCORES for all.
Two towers rank the classes by cosines; a model that predicts texts (objective caption or bag_of_words) ranks them by how
likely their prompts are, see --likelihood.
--watch True beside a training scores each checkpoint as it appears, until the run is finished.
The last line is that of the first zero-shot result, `top1=0.NN top5=0.NN classes=N chance=0.NNN`. A result that is there already
is printed, not made again.
"""

from typing import Any

from jobs._cli import entry, told
from jobs._embed import over_actors
from jobs._watch import watch
from model.evaluate import layouts, results, workspace
from model.evaluate.config import RECIPES, EvaluateConfig
from model.evaluate.datasets import EvalSet
from model.evaluate.kinds import kind
from model.evaluate.workspace import Workspace


def evaluate(config: EvaluateConfig, space: Workspace, eval_set: EvalSet, task: str) -> dict[str, Any]:
    """The result of a task on a set: found, or made and written."""
    made, argument = kind(task)
    wanted = results.identity(space.model, eval_set, task, made.needs(space, eval_set, argument))
    summary = results.finished(config, eval_set.name, task, wanted)
    if summary is not None:
        print(f"evaluate         already done: {eval_set.name}, {summary['num_pictures']:,} pictures", flush=True)
        return summary
    summary = results.write(config, task, made.run(space, eval_set, argument), wanted)
    print(results.text(summary) if "per_class" in summary else results.table_text([summary]), flush=True)
    return summary


def main(config: EvaluateConfig) -> None:
    """One model, or each checkpoint of a training as it appears."""
    if not config.watch:
        return score(config)
    with told(ValueError):
        for spec in config.specs:
            layouts.open_set(spec)
    print(f"evaluate         {watch(config, score):,} checkpoints scored beside the training", flush=True)


def score(config: EvaluateConfig) -> None:
    """Evaluate what is not evaluated yet; print the table and the last line."""
    with told(ValueError):
        for task in config.tasks:
            kind(task)
        sets = {spec: layouts.open_set(spec, config.name if spec == config.eval_set else "") for spec in config.specs}
        space = Workspace(config, results.model_hash(config), over_actors if config.num_workers else workspace.here, sets=sets)
        summaries = [evaluate(config, space, eval_set, task) for eval_set in sets.values() for task in config.tasks]
    results.write_scores(config)
    if len(summaries) > 1:
        print(results.table_text(summaries))
    for summary in summaries:
        if summary["task"] == "zero_shot" and "top1" in summary:
            print(results.last_line(summary), flush=True)
            break


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
