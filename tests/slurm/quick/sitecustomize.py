"""Python imports this at its start: Snakemake's processes, three for a job, look for no garbage among their imports.

Nor do they import pandas, a third of their start, which is for reports of efficiency that nobody asks for.
"""

import gc
import importlib.util
import sys
import types
from typing import Any

gc.disable()


def _of_pandas(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    sys.modules.pop("pandas", None)
    return getattr(importlib.import_module("pandas"), name)


# Of `python -m snakemake` and `python .../quick_snakemake.py`; there is no `sys.argv` yet.
if any(word.endswith(("snakemake", "quick_snakemake.py")) for word in sys.orig_argv[1:3]):
    _postponed = types.ModuleType("pandas")
    _postponed.__spec__ = importlib.util.find_spec("pandas")  # for those who look whether it is installed
    _postponed.__getattr__ = _of_pandas  # type: ignore[method-assign]  # PEP 562
    sys.modules["pandas"] = _postponed
