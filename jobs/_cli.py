"""What every job's command line does: a recipe's name, its fields as options, one line for a user's mistake, an exit code.

exit    0 done, 2 a mistake of the user's (one line on stderr), 1 a fault of ours (a traceback)
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tyro

from pipeline.errors import InputError
from pipeline.events import fail

DUMMY = "__tyro-dummy-inner__"  # what tyro calls a config that is an option of no other
ROOTS = {"mini": "The mini run.", "pilot": "A pilot.", "wit": "The whole dataset."}
SWITCHES = ("--retry-failed",)  # given without a value, unlike every other option
NAMED = re.compile(rf"{DUMMY}\.(.*?)(│?)$", re.MULTILINE)  # up to the frame around the message


def at_roots(config: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """The recipes of a job that works on what is there: its defaults at the root of each dataset recipe."""

    def at(name: str, what: str) -> Callable[[], Any]:
        def recipe() -> Any:
            return config(root=f"out/{name}")

        recipe.__doc__ = what
        return recipe

    return {name: at(name, what) for name, what in ROOTS.items()}


def with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the value that a bare switch stands for."""
    words = []
    for given, after in zip_longest(arguments, arguments[1:]):
        words += [given, "True"] if given in SWITCHES and after not in ("True", "False") else [given]
    return words


def parse(recipes: Mapping[str, Callable[[], Any]], manual: str | None, arguments: Sequence[str]) -> Any:
    """The config that `RECIPE --field value ...` stands for; a mistake prints what was expected and exits with 2."""
    given = next(iter(arguments), "")
    if given and not given.startswith("-") and given not in recipes:
        raise InputError(f"{Path(sys.argv[0]).stem}: expected a recipe ({', '.join(recipes)}), found {given}; --help says more")
    choices = {name: ((recipe.__doc__ or "").splitlines()[0], recipe()) for name, recipe in recipes.items()}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.overridable_config_cli(
                choices, description=manual, args=with_values(arguments), config=(tyro.conf.FlagConversionOff,)
            )  # fmt: skip
    finally:
        sys.stderr.write(NAMED.sub(rf"--\1{' ' * (len(DUMMY) - 1)}\2", said.getvalue()))


def check_root(root: str) -> None:
    """Refuse a relative root in a submitted job: its working directory is a copy that Ray throws away."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "://" not in root and not os.path.isabs(root):
        raise InputError(
            f"--root: expected an absolute path or a URL in a job that Ray runs, found {root}: the job works in a temporary copy"
        )


def entry(main: Callable[[Any], None], recipes: Mapping[str, Callable[[], Any]], manual: str | None) -> None:
    """Parse the command line and call `main` with the config."""
    try:
        config = parse(recipes, manual, sys.argv[1:])
        check_root(config.root)
        main(config)
    except InputError as error:
        fail(str(error))
        sys.exit(2)


@contextmanager
def told(kind: type[ValueError]) -> Iterator[None]:
    """Tell what model/ refuses as the user's to mend: it knows no InputError."""
    try:
        yield
    except kind as error:
        raise InputError(str(error)) from error
