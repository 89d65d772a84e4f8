"""The server whose forks `multiprocessing` hands out, as a fork of this process.

Otherwise it is a new interpreter, which imports for seconds what the tests have imported already.
"""

import gc
import importlib
import logging
import os
import select
import socket
import sys
from multiprocessing import connection, forkserver, resource_tracker

import torch

from support.watched import PRELOADED

SERVER = forkserver._forkserver  # type: ignore[attr-defined]  # nothing public says how it starts
KNOWN = sys.version_info < (3, 14)
"""Whether Python's server is started as here; later ones have keys."""


def start() -> None:
    """Fork the server, with all that is imported now. To be called once, before any test.

    Where there is a GPU, torch refuses it to forks, see `watched.prepared`.
    """
    if not KNOWN or torch.cuda.is_available():
        return
    resource_tracker.ensure_running()
    alive, kept_open = os.pipe()
    address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            os.close(kept_open)
            _serve(listener.fileno(), alive)
    os.close(alive)
    # The server ends when the last process that has this end of the pipe does.
    SERVER._forkserver_address, SERVER._forkserver_alive_fd, SERVER._forkserver_pid = address, kept_open, pid


def _prepare_numba() -> None:
    """Import what numba does at the first call of a kernel, which starts no threads: those do not survive a fork."""
    registry = importlib.import_module("numba.core.registry")
    registry.cpu_target.typing_context.refresh()
    registry.cpu_target.target_context.refresh()


def _serve(listener: int, alive: int) -> None:
    """Fork for each process that is asked for, without anything of pytest; does not return."""
    try:
        logging.getLogger().handlers.clear()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        # Those who want the output of a process redirect it there.
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        # What the tests have not imported, only once it is needed.
        select.select([listener, alive], [], [])
        gc.disable()
        for name in PRELOADED:
            importlib.import_module(name)
        _prepare_numba()
        gc.freeze()
        gc.enable()
        forkserver.main(listener, alive, [])
    finally:
        os._exit(0)
