"""Finding Blender on this machine."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from z1g.core.errors import UserError

SCRIPT = Path(__file__).parent / "blender" / "render_views.py"
CONVERTER = SCRIPT.with_name("convert.py")
CONFIG_KEY = "data.renderer.python"
ENVIRONMENT_VARIABLE = "Z1G_BLENDER"
SUITABLE = "a Python that can import bpy, or Blender's own executable"
VENV_PYTHON = Path(".venv-blender", "bin", "python")


def find_blender(configured: str | None, script: Path = SCRIPT) -> list[str]:
    """Return the command that runs a script, by default the one that renders.

    The first available of: `configured`, the environment variable Z1G_BLENDER, this interpreter if it has bpy, the
    Python in `.venv-blender` of the current folder, `blender` on PATH. Raises UserError if there is none.
    """
    for name, requested in {CONFIG_KEY: configured, ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE)}.items():
        if requested:
            executable = shutil.which(requested)
            if executable is None:
                raise UserError(f"{name}: {requested} is not an executable; give {SUITABLE}")
            return _command(executable, script)
    if importlib.util.find_spec("bpy") is not None:
        return _command(sys.executable, script)
    if VENV_PYTHON.is_file():
        return _command(str(VENV_PYTHON.absolute()), script)
    on_path = shutil.which("blender")
    if on_path is not None:
        return _command(on_path, script)
    raise UserError(
        f"no Blender found: run `make blender`, or put `blender` on PATH. Searched: {CONFIG_KEY}, the environment "
        f"variable {ENVIRONMENT_VARIABLE}, bpy in {sys.executable}, {VENV_PYTHON} in {Path.cwd()} and PATH"
    )


def _command(executable: str, script: Path) -> list[str]:
    if Path(executable).name.startswith(("python", "pypy")):
        return [executable, str(script)]
    flags = ["--background", "--factory-startup", "--disable-autoexec", "--python-exit-code", "1"]
    return [executable, *flags, "--python", str(script)]
