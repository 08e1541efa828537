"""The kinds of tasks by their names. A new one is a module and a line here."""

from model.evaluate import zero_shot
from model.evaluate.tasks import Kind

KINDS = {
    "zero_shot": Kind(run=zero_shot.run, needs=zero_shot.needs),
}


def kind(task: str) -> tuple[Kind, str]:
    """The kind of a task and its argument. Raises ValueError where there is no such kind."""
    name, _, argument = task.partition(":")
    if name not in KINDS:
        raise ValueError(f"evaluate: --tasks: expected some of {', '.join(KINDS)}, found {task!r}")
    return KINDS[name], argument
