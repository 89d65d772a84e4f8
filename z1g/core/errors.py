"""Errors that a user can cause and correct, and the exit codes that stand for them."""

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75


class UserError(Exception):
    """A mistake in the input. The message says what, where, and what to do; shown without traceback, exit code 2."""


class Preempted(Exception):
    """Training was asked to stop (SIGTERM); a checkpoint is on disk. Exit code 75, which the profiles retry."""
