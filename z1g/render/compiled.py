"""Compile the CPU rasterizer in another process, while this one still loads and runs networks.

Numba keeps what it compiles in its cache, next to the package or, where that is read-only, in the user's cache folder;
its files appear there whole, so that processes may compile at once. The compiler takes as long as all else that a
photograph's first call does, and most of that uses one core.
"""

import importlib
import importlib.util
import logging
import subprocess
import sys
import threading
from pathlib import Path

from z1g.core.imports import missing

log = logging.getLogger("z1g")
NUMBA = "numba"
_compiler: list[subprocess.Popen[bytes]] = []
_waiting = threading.Lock()


def compile_beside() -> None:
    """Start compiling, unless it is done or numba is missing; `wait` must be called before the first render."""
    if _compiler or importlib.util.find_spec(NUMBA) is None:
        return
    # Numba imports scipy for products of matrices, which no kernel has: two thirds of the first render's time.
    with missing(("scipy",)):
        importlib.import_module(f"{NUMBA}.np.arraymath")
    if is_compiled():
        return
    log.info("compiling the rasterizer, once")
    command = [sys.executable, "-m", __name__]
    _compiler.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def wait() -> None:
    """Wait for the compiler, if it was started. If it failed, the rasterizer compiles itself and says why."""
    # Sheet and film are rendered by two threads.
    with _waiting:
        while _compiler:
            _compiler.pop().wait()


def is_compiled() -> bool:
    """Whether the cache seems to hold the kernels; numba itself checks that they are of this machine and source."""
    from z1g.render import _kernels

    source, cache = Path(_kernels.__file__), Path(_kernels.forward.stats.cache_path)
    return any(file.stat().st_mtime > source.stat().st_mtime for file in cache.glob(f"{source.stem}.forward-*.nbi"))


def _draw_once() -> None:
    """Draw a Gaussian: every kernel of the forward pass is compiled for the types that it is used with."""
    import torch

    from z1g.geometry.camera import Cameras
    from z1g.render._blend import draw
    from z1g.render.base import Conventions

    pose = torch.eye(4)
    pose[2, 3] = -2
    with torch.no_grad():
        draw(torch.ones(1, 1, 14), Cameras(pose[None, None], 50.0, 8, 8), Conventions())


if __name__ == "__main__":
    _draw_once()
