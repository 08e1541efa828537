"""The kinds of tasks by their names. A new one is a module and a line here."""

from model.evaluate import overlap, probe_task, retrieval, robustness, zero_shot
from model.evaluate.tasks import Kind

KINDS = {
    "zero_shot": Kind(run=zero_shot.run, needs=zero_shot.needs),
    "retrieval": Kind(run=retrieval.run, needs=retrieval.needs),  # retrieval:PREFIX
    "shift": Kind(run=robustness.run, needs=robustness.needs),  # shift:OTHER_SET
    "overlap": Kind(run=overlap.run, needs=overlap.needs),  # overlap:FILE_OF_KEYS
    "linear_probe": Kind(run=probe_task.run, needs=probe_task.needs),
    "few_shot": Kind(run=probe_task.run_few_shot, needs=probe_task.needs_few_shot),
}


def kind(task: str) -> tuple[Kind, str]:
    """The kind of a task and its argument. Raises ValueError where there is no such kind."""
    name, _, argument = task.partition(":")
    if name not in KINDS:
        raise ValueError(f"evaluate: --tasks: expected some of {', '.join(KINDS)}, found {task!r}")
    return KINDS[name], argument
