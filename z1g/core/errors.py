"""Errors that a user can cause and correct, and their exit codes."""

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130
"""After Ctrl-C (SIGINT), as shells count: 128 and the signal's number."""
EXIT_TERMINATED = 143
"""After SIGTERM."""


class UserError(Exception):
    """A mistake in the input. The message says what, where, and what to do; no traceback, exit code 2."""


class Preempted(Exception):
    """Training stopped on SIGTERM after writing a checkpoint. Exit code 75, which the profiles retry."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is no Exception, so that nothing takes it for a fault of its own."""
