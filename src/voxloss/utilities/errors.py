"""The one error type that the commands print as a sentence instead of a traceback."""


class InputError(ValueError):
    """A user's mistake: a file, a configuration key or a value that cannot be used.

    The message is one sentence that names the file or the value received. Commands print it and exit with status 2.
    """
