"""Photographs that the page has received, in memory."""

from __future__ import annotations

import importlib.util
import io
import os
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from z1g.core.errors import UserError
from z1g.inference.batch import names
from z1g.inference.models import TrainedModel
from z1g.inference.photographs import Background, Framing, Photograph, condition, decode
from z1g.render.images import to_bytes

Cut = Literal["alpha", "rembg", "keep"]
"""What separates the object from its background: the image's transparency, rembg, or nothing."""
BACKGROUND: dict[Cut, Background] = {"alpha": "remove", "rembg": "remove", "keep": "keep"}
"""Cuts as `z1g infer --background` calls them."""
MAX_PIXELS = 50_000_000
"""Larger photographs are refused: many people's uploads share this machine's memory."""
KEPT = 8
"""Photographs in memory; the oldest makes room."""


def can_remove() -> bool:
    """Whether rembg is installed and its weights are on this machine; the page does not download them."""
    home = Path(os.environ.get("U2NET_HOME") or Path.home() / ".u2net")
    installed = all(importlib.util.find_spec(name) for name in ("rembg", "onnxruntime"))
    return installed and (home / "u2net.onnx").is_file()


@dataclass
class Upload:
    """A photograph's file. name: a word from its file name, for the results."""

    file: str
    name: str
    content: bytes
    plain: Photograph
    without: Photograph | None = None
    """Cut out by rembg, once that has been asked for."""

    @property
    def transparent(self) -> bool:
        """Whether it has transparency of its own."""
        return bool(self.plain.rgba[..., 3].min() < 255)

    @property
    def cuts(self) -> list[Cut]:
        """Cuts that are possible, the best one first."""
        if self.transparent:
            return ["alpha"]
        return ["rembg", "keep"] if can_remove() else ["keep"]


class Uploads:
    """The latest photographs, by ids that cannot be guessed."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Upload] = OrderedDict()
        self._lock, self._decoding = threading.Lock(), threading.Lock()

    def add(self, content: bytes, file: str) -> str:
        """Decode a photograph's file and keep it. Returns its id. Raises UserError if it cannot be used."""
        file = Path(file.replace("\\", "/")).name[:200] or "photograph"
        # One at a time: a decoded photograph takes far more memory than its file.
        with self._decoding:
            _require_pixels(content, file)
            upload = Upload(file, names([Path(file)])[0], content, decode(content, Path(file), "keep"))
        identity = secrets.token_urlsafe(12)
        with self._lock:
            self._all[identity] = upload
            while len(self._all) > KEPT:
                self._all.popitem(last=False)
        return identity

    def get(self, identity: str) -> Upload:
        """A photograph. Raises UserError if it is not here any more."""
        with self._lock:
            upload = self._all.get(identity)
        if upload is None:
            raise UserError("the photograph is not here any more; drop it again")
        return upload

    def cut(self, identity: str, cut: Cut) -> tuple[Upload, Photograph]:
        """A photograph as a model gets it. Raises UserError if it cannot be cut in this way."""
        upload = self.get(identity)
        if cut not in upload.cuts:
            raise UserError(f"{upload.file} can be used with {' or '.join(upload.cuts)}, not {cut}")
        if cut != "rembg":
            return upload, upload.plain
        with self._decoding:
            if upload.without is None:
                upload.without = decode(upload.content, Path(upload.file), "remove")
        return upload, upload.without

    def preview(self, identity: str, cut: Cut, framing: Framing, model: TrainedModel) -> bytes:
        """PNG of the condition image: what a model will see."""
        _, photograph = self.cut(identity, cut)
        size, resize = model.condition
        image = condition(photograph, model.camera, size, BACKGROUND[cut], resize, framing)
        return png(to_bytes(image))


def png(pixels: np.ndarray) -> bytes:
    """PNG file of [H,W,3] bytes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _require_pixels(content: bytes, file: str) -> None:
    """Raise UserError for an image of too many pixels, by its header; damage is found when it is decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = image.width * image.height
    except Exception:  # Pillow raises many kinds, all of which `decode` reports
        return
    if pixels > MAX_PIXELS:
        raise UserError(f"{file} has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller")
