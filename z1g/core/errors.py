"""Errors that a user can cause and correct, and their exit codes."""

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75


class UserError(Exception):
    """A mistake in the input. The message says what, where, and what to do; no traceback, exit code 2."""


class Preempted(Exception):
    """Training stopped on SIGTERM after writing a checkpoint. Exit code 75, which the profiles retry."""
