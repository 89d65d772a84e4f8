"""What options need of a machine, for `Section.check`: files, folders and packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from z1g.core.errors import UserError

GPU = Path("/proc/driver/nvidia/version")
"""There wherever NVIDIA's driver is loaded; asking this file imports nothing."""
ATTENTION = {"xformers": "xformers", "flash4": "flash_attn.cute"}
"""Modules of the packages whose kernels of attention torch does not call, by the name of the choice."""


class Missing(UserError):
    """Something that options need is not on this machine.

    field: the option that names it, empty where the choice itself needs it. fatal: whether jobs cannot do without it.
    """

    def __init__(self, field: str, message: str, fatal: bool = True) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field, self.message, self.fatal = field, message, fatal


def require_file(field: str, path: str | None, remedy: str, fatal: bool = True) -> None:
    """Raise Missing where the option gives no file, or none that exists."""
    if not path:
        raise Missing(field, f"no file is given; {remedy}", fatal)
    if not Path(path).is_file():
        raise Missing(field, f"{path} is not a file{looked_from(path)}; {remedy}", fatal)


def require_folder(field: str, path: str | None, remedy: str, fatal: bool = True) -> None:
    """Raise Missing where the option gives no folder, or none that exists."""
    if not path:
        raise Missing(field, f"no folder is given; {remedy}", fatal)
    if not Path(path).is_dir():
        raise Missing(field, f"{path} is not a folder{looked_from(path)}; {remedy}", fatal)


def looked_from(path: str) -> str:
    """Where a relative path was looked for, in parentheses."""
    return "" if Path(path).is_absolute() else f" (looked from {Path.cwd()})"


def require_package(field: str, name: str, remedy: str, fatal: bool = True) -> None:
    """Raise Missing where a Python package is not installed. It is looked for, not imported: that may need a GPU."""
    if not has_package(name):
        raise Missing(field, f"the package {name} is not installed; {remedy}", fatal)


def has_package(name: str) -> bool:
    """Whether a Python package or a module of one is installed. It is looked for, not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        # The package that the module is of is missing.
        return False


def require_attention(kernels: str) -> None:
    """Raise Missing where the package of the chosen attention kernels is not installed."""
    if kernels in ATTENTION:
        require_package("attention", ATTENTION[kernels], f"pip install 'z1g[{kernels}]', or choose auto")
