"""The plan of a build or of a training run, before it is paid for.

    python -m infra.plan build --measured out/mini --measured-cores 2 --node.price-per-hour 3 --node.cores 64 \\
        --store.per-gb-month 0.023 --store.per-1000-put 0.005 --store.per-1000-get 0.0004 --deadline-hours 72
    python -m infra.plan train --recipe vit_b_32 --node.price-per-hour 30 --node.gpus 8 --node.cores 192 --num-gpus 8 64 256
    python -m infra.plan check --against out/mini                       # half of its parts predict the other half
    python -m infra.plan check --measured out/small --against out/mini  # one run predicts another

Prices are yours to give. Every number that is not measured is an assumption and is printed with the plan.
"""

import json
import sys
from collections.abc import Sequence
from math import ceil
from typing import Any

import tyro

from infra.plan import build, check, measured, tables, training
from infra.plan.config import BuildConfig, CheckConfig, TrainPlanConfig
from pipeline import config as recipes
from pipeline import storage
from pipeline.errors import InputError
from pipeline.events import fail


def plan_build(config: BuildConfig) -> dict[str, Any]:
    """Print the plan of a build."""
    found = measured.rates(config.measured, config.measured_cores) if config.measured else {}
    rates = measured.with_settings(found, config.set)
    per_archive = config.links_per_archive or (measured.links_per_archive(config.measured[-1]) if config.measured else 0)
    if not per_archive:
        raise InputError("plan: give --links-per-archive, or --measured")
    recipe = recipes.RECIPES[config.recipe]()
    queries = config.queries or recipe.queries.max_queries
    links = build.links_for(config.pairs, rates)
    listed = build.Queries(queries, config.queries_per_pair, config.head_share)
    made = build.volumes(links, ceil(links / per_archive), rates, recipe, listed)
    plan = build.fewest_nodes(made, rates, config, queries)
    assumptions = tables.build_assumptions(config, rates, queries)
    print(tables.build_table(plan, config))
    _print_list("taken for granted", assumptions)
    return tables.build_json(plan, config, rates, assumptions)


def plan_train(config: TrainPlanConfig) -> dict[str, Any]:
    """Print the plan of a training run."""
    plans = training.plan(config)
    assumptions = tables.train_assumptions(config, plans)
    print(tables.train_table(plans))
    _print_list("taken for granted", assumptions)
    return tables.train_json(config, plans, assumptions)


def check_run(config: CheckConfig) -> dict[str, Any]:
    """Print what was predicted of a run beside what was seen."""
    lines = check.of_another(config) if config.measured else check.of_its_half(config)
    summary = tables.check_summary(lines)
    print(tables.check_table(lines))
    trained = check.of_training(config.against)
    summary += [
        f"train, its second half by its first: {line['wall_seconds_predicted']:,.1f} s, seen {line['wall_seconds_seen']:,.1f} s"
        for line in trained
    ]
    _print_list("predicted over seen", summary)
    return {"steps": [*lines, *trained], "summary": summary}


def _print_list(title: str, lines: Sequence[str]) -> None:
    print(f"\n{title}:")
    for line in lines:
        print(f"  * {line}")


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and print. -> the exit code, as the jobs have it"""
    try:
        config = tyro.extras.subcommand_cli_from_dict(
            {"build": BuildConfig, "train": TrainPlanConfig, "check": CheckConfig}, args=list(arguments),
            prog="python -m infra.plan", description=__doc__,
        )  # fmt: skip
        if isinstance(config, BuildConfig):
            result = plan_build(config)
        else:
            result = plan_train(config) if isinstance(config, TrainPlanConfig) else check_run(config)
        if config.json:
            storage.write(config.json, json.dumps(result, indent=1).encode())
    except InputError as error:
        fail(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
