"""Signs of life: what a running job leaves, what a killed one leaves, and who counts as alive."""

import errno
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from z1g.core import heartbeat
from z1g.core.heartbeat import SILENT_S, Heartbeat, Progress, alive, beating, read
from z1g.core.progress import Meter

CHILD = """
import sys, threading
from pathlib import Path
from z1g.core.heartbeat import beating
from z1g.core.progress import Meter

with beating(Path(sys.argv[1]), gpus=2, every_s=0.01), Meter("unet", 10, 3) as meter:
    meter.advance(further={"loss": 0.5, "rgb": float("nan")}, loss=0.5)
    threading.Event().wait()
"""


def until(file: Path, step: int) -> Heartbeat:
    """Wait for the sign of life that says `step`."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        beat = read(file)
        if beat is not None and beat.progress.step == step:
            return beat
        time.sleep(0.01)
    raise AssertionError(f"step {step} is not told: {read(file)}")


def test_a_job_tells_how_far_it_is_and_a_killed_one_leaves_it(tmp_path: Path) -> None:
    file = tmp_path / "progress" / "unet.json"
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", CHILD, str(file)]) as child:
        try:
            beat = until(file, 4)
            assert (beat.host, beat.pid, beat.gpus) == (socket.gethostname(), child.pid, 2)
            assert before <= beat.started <= beat.time <= time.time()
            assert beat.progress.task == "unet"
            assert beat.progress.of == 10
            assert beat.progress.figures == {"loss": 0.5}, "JSON has no NaN"
            assert alive(beat)
        finally:
            child.send_signal(signal.SIGKILL)
    left = read(file)
    assert left is not None
    assert left.progress.step == 4
    assert not alive(left), "its process is gone, however recent it is"
    assert alive(Heartbeat(**{**vars(left), "host": "elsewhere"})), "nothing more is known of another host's process"


def test_nothing_is_left_at_the_end_or_after_an_error(tmp_path: Path) -> None:
    file = tmp_path / "progress" / "fit.json"

    def job() -> None:
        with beating(file, gpus=0):
            assert read(file) is not None, "from the first moment"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert list(file.parent.iterdir()) == []


def test_the_last_meter_counts_and_none_outside_of_a_job(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with Meter("nobody asks", 5) as meter:
        meter.advance()
    with beating(file, gpus=0, every_s=0.01):
        with Meter("reading", 2) as meter:
            meter.advance(2)
            assert until(file, 2).progress.task == "reading"
        with Meter("training", 9, 6) as meter:
            meter.advance(loss=2.0)
            beat = until(file, 7)
            assert (beat.progress.task, dict(beat.progress.figures)) == ("training", {"loss": 2.0})
    with Meter("again", 5) as meter:
        meter.advance()
    assert heartbeat._Reported.progress.task == "training"


def test_a_folder_that_cannot_be_written_does_not_stop_a_job(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with beating(tmp_path / "file" / "a.json", gpus=0):
        pass


def test_a_full_disk_leaves_no_unfinished_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(file: Path, content: bytes) -> int:
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with beating(tmp_path / "a.json", gpus=0):
        assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("age", "there"), [(SILENT_S - 1, True), (SILENT_S + 1, False)])
def test_on_another_host_the_age_decides(age: float, there: bool) -> None:
    assert alive(Heartbeat("elsewhere", 1, 0.0, 0.0, time=1e6), now=1e6 + age) is there


def test_a_process_with_the_same_id_is_another_one() -> None:
    own = psutil.Process()
    same = Heartbeat(socket.gethostname(), own.pid, own.create_time(), 0.0, time=0.0)
    assert alive(same), "on this host, silence is not death"
    assert not alive(Heartbeat(**{**vars(same), "born": own.create_time() - 60}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"host": "a"}', '{"host": 1, "pid": 1, "born": 1, "started": 1, "time": 1}', "\xff"]
)
def test_damaged_files_are_no_sign_of_life(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="latin1")
    assert read(file) is None


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    beat = Heartbeat("h", 1, 2.0, 3.0, 4.0, 5, "6", Progress("t", 1, 2, 3.0, {"loss": 4.0}))
    heartbeat._write(file, beat)
    assert read(file) == beat
    assert json.loads(file.read_text())["progress"]["figures"] == {"loss": 4.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
