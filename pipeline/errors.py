"""The one exception that is a user's business: input that this program cannot work with.

Everything that a user can mend (a missing archive, a torn file, a root made with another configuration, a full disk)
is an InputError whose text says who speaks, what was expected, what was found and what to do. The jobs print it as one
line and exit with 2; every other exception is a fault of ours and keeps its traceback.
"""


class InputError(ValueError):
    """A mistake in what the program was given; its text is shown to the user as it is."""
