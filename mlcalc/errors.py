"""The errors that mlcalc raises.

Every message names the argument, the value received, the rule, and what to do.
`UsageError` is the caller's to mend (exit status 2 on the command line), `RunError` is a calculation that went
wrong while running (exit status 1).
"""


class MlcalcError(Exception):
    """Base of all errors that mlcalc raises on purpose."""

    exit_status = 1


class UsageError(MlcalcError, ValueError):
    """An argument, a file or a structure that cannot be used as given."""

    exit_status = 2


class RunError(MlcalcError, RuntimeError):
    """A run that had to stop: not-a-number, explosion, full disk."""

    exit_status = 1


class CheckpointError(UsageError):
    """A checkpoint file that is missing, truncated, foreign, or changed since it was written."""


class TooShortToTell(RunError):
    """The record is too short for a trustworthy error bar; `.estimate` holds the untrustworthy finding."""

    def __init__(self, message: str, estimate: object = None) -> None:
        super().__init__(message)
        self.estimate = estimate
