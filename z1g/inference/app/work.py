"""The queue of `z1g app`: one thread samples, one result after the other."""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from z1g.core.errors import UserError
from z1g.core.files import FULL
from z1g.core.names import counted
from z1g.core.progress import Meter
from z1g.core.slots import MAX_SEED
from z1g.gaussians import files as splat_files
from z1g.gaussians.splats import Splats
from z1g.inference.app.uploads import BACKGROUND, Cut, Uploads
from z1g.inference.batch import Batch, PhotographOptions, require_own
from z1g.inference.method import ImageToSplats
from z1g.inference.models import TrainedModel
from z1g.inference.photographs import Framing, Photograph
from z1g.render.web import pack, thin

log = logging.getLogger("z1g")
SEEDS, WAITING, KEPT = 8, 32, 24
"""Largest number of samples asked for at once, of samples in the queue, and of finished ones in memory."""
SHOWN = 120_000
"""Largest number of splats that a browser gets of one sample."""
QUIET_S = 1e9
"""No line about progress on the terminal: the page shows it."""
LOADED = 2
"""Models in memory."""


class Asked(BaseModel):
    """What the page asks for: one sample for each seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photograph: str = Field(max_length=64)
    model: int = Field(0, ge=0, description="index of a model of this server")
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(min_length=1, max_length=SEEDS)
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=1, le=1000)
    cut: Cut = "keep"
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    mesh: bool = False
    refine: bool = False

    @property
    def framing(self) -> Framing:
        """The changes of the crop. Raises UserError."""
        return Framing(self.shift, self.zoom)


State = Literal["waiting", "running", "done", "failed", "stopped"]


@dataclass
class Sample:
    """One sample: its state, and its files once it is done. error: why it failed, or why it has no mesh."""

    asked: Asked
    seed: int
    file: str
    name: str
    state: State = "waiting"
    step: int = 0
    steps: int = 0
    error: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    stop: bool = False


class Stopped(Exception):
    """A sample that nobody wants any more."""


class Studio:
    """Models, photographs and samples of one server. `out`: a folder for all results, None keeps none on disk."""

    def __init__(self, models: Sequence[TrainedModel], out: Path | None = None, unfinished: Path | None = None) -> None:
        self.models, self.uploads = list(models), Uploads()
        self.out, self.unfinished = out, unfinished
        self._samples: OrderedDict[str, Sample] = OrderedDict()
        self._queue: deque[str] = deque()
        self._photographs: dict[str, Photograph] = {}
        self._changed = threading.Condition()
        self._loaded: OrderedDict[int, ImageToSplats] = OrderedDict()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> list[str]:
        """Put samples into the queue. Returns their ids. Raises UserError if they cannot be made or it is full."""
        if asked.model >= len(self.models):
            raise UserError(
                f"there is no model {asked.model} here, but {counted(len(self.models), 'model')}, counted from 0"
            )
        Framing(asked.shift, asked.zoom)
        upload, photograph = self.uploads.cut(asked.photograph, asked.cut)
        self.models[asked.model].sampling(asked.steps, asked.guidance)
        several = [Sample(asked, seed, upload.file, f"{upload.name}-{seed}") for seed in dict.fromkeys(asked.seeds)]
        with self._changed:
            if len(self._queue) + len(several) > WAITING:
                raise UserError(
                    f"the queue is full with {counted(len(self._queue), 'waiting sample')}; ask again later"
                )
            identities = [secrets.token_urlsafe(12) for _ in several]
            self._samples.update(zip(identities, several, strict=True))
            self._photographs.update(dict.fromkeys(identities, photograph))
            self._queue.extend(identities)
            self._forget()
            self._changed.notify()
        return identities

    def get(self, identity: str) -> Sample:
        """A sample. Raises UserError if it is not here any more."""
        with self._changed:
            sample = self._samples.get(identity)
        if sample is None:
            raise UserError("this sample is not here any more; make it again")
        return sample

    def ahead(self, identity: str) -> int:
        """Number of samples that are made before a waiting one, the running one included."""
        with self._changed:
            running = any(sample.state == "running" for sample in self._samples.values())
            return (self._queue.index(identity) if identity in self._queue else 0) + running

    def stop(self, identity: str) -> None:
        """End a sample that waits or runs."""
        sample = self.get(identity)
        with self._changed:
            sample.stop = True
            if sample.state == "waiting":
                sample.state = "stopped"
                self._queue.remove(identity)
                del self._photographs[identity]

    def close(self) -> None:
        """End the thread after the step that it computes."""
        with self._changed:
            self._closed = True
            for sample in self._samples.values():
                sample.stop = True
            self._changed.notify()
        self._thread.join()

    def _forget(self) -> None:
        """Make room: the oldest finished samples go."""
        finished = [key for key, sample in self._samples.items() if sample.state not in ("waiting", "running")]
        for key in finished[: max(0, len(finished) - KEPT)]:
            del self._samples[key]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                identity = self._queue.popleft()
                sample, photograph = self._samples[identity], self._photographs.pop(identity)
                sample.state = "running"
            state: State = "done"
            try:
                sample.files = self._make(sample, photograph)
            except Stopped:
                state = "stopped"
            except UserError as error:
                sample.error, state = str(error), "failed"
            except Exception as error:
                # One photograph must not end the server for everyone; the reason is for its operator.
                log.exception("a sample of %s failed", sample.file)
                full = isinstance(error, OSError) and error.errno in FULL
                what = "the server's disk is full" if full else "something went wrong; the server's terminal says what"
                sample.error, state = what, "failed"
            sample.state = state

    def _make(self, sample: Sample, photograph: Photograph) -> dict[str, bytes]:
        """The files of a sample by their endings, as `z1g infer` writes them."""

        def on_step(done: int, steps: int) -> None:
            sample.step, sample.steps = done, steps
            check()

        def check() -> None:
            if sample.stop:
                raise Stopped

        asked = sample.asked
        method = self._method(asked.model).sampling(asked.steps, asked.guidance)
        sample.steps = method.options.steps
        with tempfile.TemporaryDirectory(prefix="z1g-app-") as temporary:
            out, unfinished = self.out or Path(temporary) / "out", self.unfinished or Path(temporary) / "unfinished"
            for folder in (out, unfinished):
                folder.mkdir(exist_ok=True)
            require_own(out, [sample.name])
            options = PhotographOptions(
                out, BACKGROUND[asked.cut], sample.seed, mesh=asked.mesh, framing=asked.framing, refine=asked.refine
            )
            batch = Batch(method, options, self.command(sample), unfinished, on_step, check)
            try:
                with Meter("sample", 1, quiet_s=QUIET_S) as meter:
                    batch.make([(Path(sample.file), sample.name, photograph)], meter)
            finally:
                for file in unfinished.iterdir():  # of a sample that was stopped or failed
                    file.unlink()
            if batch.failures.reasons:
                raise UserError(next(iter(batch.failures.reasons.values())))
            sample.error = "".join(batch.failures.meshes.values())
            names = json.loads((out / f"{sample.name}.json").read_text(encoding="utf-8"))["outputs"].values()
            return {
                name.removeprefix(sample.name): (out / name).read_bytes() for name in [*names, f"{sample.name}.json"]
            }

    def _method(self, index: int) -> ImageToSplats:
        if index not in self._loaded:
            while len(self._loaded) >= LOADED:
                self._loaded.popitem(last=False)
            self._loaded[index] = ImageToSplats.of(self.models[index])
        self._loaded.move_to_end(index)
        return self._loaded[index]

    def command(self, sample: Sample) -> list[str]:
        """The command that makes the same files, but for their names."""
        asked, model = sample.asked, self.models[sample.asked.model]
        words = ["z1g", "infer", sample.file, "--model", model.name, "--seed", str(sample.seed)]
        words += ["--background", BACKGROUND[asked.cut]]
        words += ["--steps", str(asked.steps)] if asked.steps is not None else []
        words += ["--guidance", str(asked.guidance)] if asked.guidance is not None else []
        words += ["--shift", *map(str, asked.shift)] if any(asked.shift) else []
        words += ["--zoom", str(asked.zoom)] if asked.zoom != 1 else []
        return words + ["--refine"] * asked.refine + ["--mesh"] * asked.mesh


def download(sample: Sample, ending: str) -> bytes:
    """A file of a finished sample by its ending; `.splat` and `.spz` are made of the `.ply`. Raises UserError."""
    if ending in sample.files:
        return sample.files[ending]
    if ending not in splat_files.FORMATS or ".ply" not in sample.files:
        raise UserError(f"there is no file {sample.name}{ending}")
    with tempfile.TemporaryDirectory(prefix="z1g-app-") as temporary:
        path = Path(temporary) / f"a{ending}"
        splats(sample, Path(temporary)).save(path)
        return path.read_bytes()


def packed(sample: Sample) -> bytes:
    """The visible splats for `splatCanvas`, see `z1g.render.web.pack`."""
    with tempfile.TemporaryDirectory(prefix="z1g-app-") as temporary:
        visible = splats(sample, Path(temporary)).visible().tensor.double().numpy()
    return pack(thin(visible, SHOWN))


def splats(sample: Sample, folder: Path) -> Splats:
    """The splats of a finished sample. Raises UserError."""
    if ".ply" not in sample.files:
        raise UserError("this sample has no splats yet")
    (folder / "read.ply").write_bytes(sample.files[".ply"])
    return Splats.load(folder / "read.ply")
