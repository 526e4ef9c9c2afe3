"""The one exception of the tasks that is the user's to mend: its message names the argument or file."""


class RunError(Exception):
    """A run cannot start or go on: bad argument, data file or checkpoint, or a figure that is not finite."""
