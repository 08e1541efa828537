"""What every job's command line does: a recipe's name, its fields as options, one line for a user's mistake, an exit code.

exit    0 done, 2 a mistake of the user's (one line on stderr), 1 a fault of ours (a traceback)
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tyro

from pipeline.errors import InputError
from pipeline.events import fail


def entry(main: Callable[[Any], None], recipes: Mapping[str, Callable[[], Any]], manual: str | None) -> None:
    """Parse `RECIPE --field value ...` into the recipe's config and call `main` with it."""
    try:
        choices = {name: ((recipe.__doc__ or "").splitlines()[0], recipe()) for name, recipe in recipes.items()}
        config = tyro.extras.overridable_config_cli(choices, description=manual, config=(tyro.conf.FlagConversionOff,))
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
