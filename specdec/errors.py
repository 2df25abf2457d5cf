"""The one exception for mistakes a user can make; not for bugs, which keep their tracebacks."""


class UserError(Exception):
    """A mistake in the input: one line that says what is wrong and what to do.

    Drivers print it on stderr and exit with status 2.
    """
