"""The kinds of tasks by their names. A new one is a module and a line here."""

from model.evaluate import overlap, retrieval, robustness, zero_shot
from model.evaluate.tasks import Kind

KINDS = {
    "zero_shot": Kind(run=zero_shot.run, needs=zero_shot.needs),
    "retrieval": Kind(run=retrieval.run, needs=retrieval.needs),  # retrieval:PREFIX
    "shift": Kind(run=robustness.run, needs=robustness.needs),  # shift:OTHER_SET
    "overlap": Kind(run=overlap.run, needs=overlap.needs),  # overlap:FILE_OF_KEYS
}


def kind(task: str) -> tuple[Kind, str]:
    """The kind of a task and its argument. Raises ValueError where there is no such kind."""
    name, _, argument = task.partition(":")
    if name not in KINDS:
        raise ValueError(f"evaluate: --tasks: expected some of {', '.join(KINDS)}, found {task!r}")
    return KINDS[name], argument
