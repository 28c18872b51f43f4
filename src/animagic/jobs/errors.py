"""What can be wrong with a job that is asked for."""

from ..errors import AnimagicError, InputError


class NoSuchJob(InputError):
    """There is no job of that id, or it is somebody else's."""


class TooMany(InputError):
    """Somebody has as many unfinished jobs as the limits allow."""


class JobFailed(AnimagicError):
    """The job whose stream is read has failed. code: as in `Job.error`."""

    def __init__(self, code: str, sentence: str):
        super().__init__(sentence)
        self.code = code


class TooLarge(InputError):
    """A file that is given is beyond the limits."""


class OutOfSpace(InputError):
    """The disk, or the share of it that jobs may take, is full."""
