"""The errors that a user can mend; everything else that is raised is a bug of ours."""


class ScansegError(Exception):
    """A failure that its message explains in full; the command line prints no traceback (exit 1)."""


class InputError(ScansegError):
    """Something that came from outside (a file, a document, an argument) cannot be used as it is."""


class UsageError(ScansegError):
    """The command or function was called in a way that cannot be carried out (exit 2)."""


class OtherProcessError(ScansegError):
    """Another of the processes that work together failed, and says why itself."""
