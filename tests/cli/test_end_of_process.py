"""How a process of a command ends: with its exit code, after what was registered and written."""

import errno
import subprocess
import sys
import threading

import pytest

from z1g.cli import main

END = """
import atexit, sys
from z1g.cli import main
main.main = lambda: {code}
main.are_kept = lambda: {kept}
class Freed:
    def __del__(self):
        sys.stderr.write("freed")
freed = Freed()
freed.itself = freed
atexit.register(lambda: sys.stdout.write(", registered"))
sys.stdout.write("written")
main.run()
"""


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("code", [0, 2])
def test_output_and_exit_code_are_kept_whether_objects_are_freed_or_not(kept: bool, code: int) -> None:
    script = END.format(code=code, kept=kept)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (code, "written, registered")
    assert done.stderr == ("" if kept else "freed")


def test_nothing_is_logged_after_the_last_line() -> None:
    """As torch does if Ctrl-C ends its import."""
    log = 'import logging; logging.basicConfig(level=0); atexit.register(lambda: logging.error("statistics"))'
    script = END.format(code=130, kept=False).replace("freed = Freed()", log).replace("freed.itself = freed", "")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (130, "written, registered", "")


def test_a_thread_of_a_library_that_finds_the_disk_full_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard writes events in one. Its other errors are faults, and keep their traceback."""
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda ended: seen.append(ended.exc_type))

    def fail(error: Exception) -> None:
        raise error

    def work(*_: object) -> int:
        for error in (OSError(errno.ENOSPC, "No space left on device", "tb/events"), KeyError("a")):
            thread = threading.Thread(target=fail, args=[error])
            thread.start()
            thread.join()
        return 0

    monkeypatch.setattr(main, "_run", work)
    assert main.main(["unet"]) == 0
    line = "z1g unet: error: tb/events: the disk is full; make room and run the same command again\n"
    assert (capsys.readouterr().err, seen) == (line, [KeyError])
