"""Triton's interpreter without half of its time.

It replaces the functions of `triton.language` when a kernel is launched, and again at every call of a device function
in it, such as `tl.sum`: it then looks through hundreds of members to find them replaced.
"""

import sys
from typing import Any


def quicken() -> None:
    """Let calls of device functions replace functions only if they are not replaced yet."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or hasattr(interpreter.InterpretedFunction, "quick"):
        return
    core, function = interpreter.tl.core, interpreter.InterpretedFunction
    whole = function.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A kernel's launch replaces those of `triton.language`, and the first device function those of `core`.
        languages = [interpreter.tl] if core not in self.fn.__globals__.values() else [interpreter.tl, core]
        if any(core.is_builtin(language.load) for language in languages):
            return whole(self, *args, **kwargs)
        try:
            return self.rewrite()(*args, **kwargs)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    function.__call__, function.quick = call, True
