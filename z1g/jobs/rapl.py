"""Energy of a machine's processors, by the counters (RAPL, of Intel's and AMD's) that Linux shows below `powercap`."""

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Lock, Thread

log = logging.getLogger("z1g")
POWERCAP = Path("/sys/class/powercap")
EVERY_S = 30.0
"""A counter of 65 kJ, the smallest known, takes minutes at full load to begin anew."""


class Packages:
    """Counters of all processor packages of this machine, whoever uses them; they begin at construction.

    Where there are counters that this process may read, a thread reads them now and then until `joules` is asked for:
    they begin anew after some hundred kilojoules, which would pass unseen in a long job.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._root, self._lock, self._done = root, Lock(), Event()
        self._microjoules = 0
        self._last = self._read()
        if self._last is not None:
            Thread(target=self._watch, name="rapl", daemon=True).start()

    def joules(self) -> float | None:
        """Energy of all packages since construction, None where a counter cannot be read; ends the watch."""
        self._done.set()
        self.update()
        return None if self._last is None else round(self._microjoules / 1e6, 1)

    def update(self) -> None:
        """Take in what the counters went on by, once round at most."""
        with self._lock:
            now = self._read()
            if now is None or self._last is None or now.keys() != self._last.keys():
                self._last = None
                return
            for zone, (value, limit) in now.items():
                before = self._last[zone][0]
                self._microjoules += value - before + (limit if value < before else 0)
            self._last = now

    def _watch(self) -> None:
        while not self._done.wait(EVERY_S):
            self.update()

    def _read(self) -> dict[str, tuple[int, int]] | None:
        """Each package's counter and where it begins anew, in microjoules; None without counters that may be read."""
        try:
            found = {
                zone.name: (_number(zone / "energy_uj"), _number(zone / "max_energy_range_uj"))
                for zone in self._zones()
            }
        except (OSError, ValueError) as error:  # since Linux 5.10 only root may, unless the machine's owner says so
            log.debug("no CPU meters: %s", error)
            return None
        return found or None

    def _zones(self) -> Iterator[Path]:
        """Packages only: cores and memory controllers are parts of one, and other zones hold packages."""
        for zone in sorted(self._root.glob("intel-rapl:*")):
            if (zone / "name").read_text(encoding="ascii").startswith("package"):
                yield zone


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
