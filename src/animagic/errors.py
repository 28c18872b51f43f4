"""The errors that a user can cause. The command line prints their one sentence and leaves with exit code 2."""


class AnimagicError(Exception):
    """Base of every error whose cause lies in what was given, not in this library."""


class InputError(AnimagicError, ValueError):
    """A value that was given cannot be used; the message says what is allowed and what to do."""


class CheckpointError(AnimagicError):
    """A checkpoint does not fit; the message names the file or the tensor."""


class MediaError(AnimagicError, OSError):
    """A picture, video or sound file cannot be read or written; the message names it."""


def first_line(error: BaseException) -> str:
    """The first line of an error of another library, to go on with a sentence of ours; without its full stop."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
