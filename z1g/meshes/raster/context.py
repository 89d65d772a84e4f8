"""OpenGL without a screen. `python -m z1g.meshes.raster.context` tries it: exit code 1 and the reason if it fails."""

import os
import sys
from typing import Any


class NoOpenGL(Exception):
    """OpenGL without a screen is not available here; the message is shown to the user."""


def open_context() -> Any:
    """A context of OpenGL 3.3 by EGL. Raises NoOpenGL."""
    try:
        import moderngl

        return moderngl.create_context(standalone=True, require=330, backend="egl")  # type: ignore[arg-type]  # its stub is wrong
    # glcontext and drivers raise plain Exceptions.
    except Exception as error:
        raise NoOpenGL(
            f"OpenGL without a screen (EGL) is not available here ({error}); install a GPU's driver or Mesa (Debian: "
            "libegl1 libegl-mesa0), or set data.renderer: {kind: blender}"
        ) from error


if __name__ == "__main__":
    code = 0
    try:
        open_context()
    except NoOpenGL as error:
        sys.stdout.write(f"{error}\n")
        code = 1
    sys.stdout.flush()
    os._exit(code)  # drivers' exit handlers sometimes hang
