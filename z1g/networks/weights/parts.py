"""Load parts of published pipelines as plain tensors; no code from the hub is executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import PreTrainedModel

from z1g.core.errors import UserError
from z1g.core.weights import require_finite
from z1g.networks import stored
from z1g.networks.preprocessing import FILE as PROCESSOR
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.weights import layout as layout

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A published pipeline.

    pretrained: hub name or folder. name: what it has to be, such as "Zero123++ pipeline". content: its parts, for
    messages. revision: of a hub name; None: the newest.
    """

    pretrained: str
    name: str
    content: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one."""
        folder = Path(self.pretrained).expanduser()
        return folder if folder.is_dir() else None

    def part(self, cls: type[nn.Module], subfolder: str) -> Any:
        """A network with all of its weights, converted to float32. Raises UserError if they are missing."""
        if self.folder is None:
            forms: tuple[Any, ...] = layout.FORMS
        elif absent := layout.missing(self.folder, (subfolder,)):
            raise UserError(f"model.pretrained: {self.pretrained} lacks {', '.join(absent)} of a {self.name}")
        else:
            forms = (layout.form_of(self.folder, subfolder),)
        problem = ""
        for form in forms:
            try:
                part, info = self._load(cls, subfolder, form)
            except (*stored.UNREADABLE, UnpicklingError) as error:
                problem = problem or stored.first_line(error)
                continue
            stored.require_all(info, f"model.pretrained: {self.pretrained} has no usable '{subfolder}'")
            require_finite(part.state_dict(), f"model.pretrained: {self.pretrained}, {subfolder}")
            return part
        raise UserError(
            f"model.pretrained: {self.pretrained} has no usable '{subfolder}' ({problem}); "
            f"give a hub name that this machine can reach or a folder with {self.content}"
        )

    def _load(self, cls: Any, subfolder: str, form: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        # By default transformers keeps the half precision of a checkpoint.
        dtype = {"dtype": torch.float32} if issubclass(cls, PreTrainedModel) else {"torch_dtype": torch.float32}
        revision = {} if self.folder is not None or self.revision is None else {"revision": self.revision}
        options = {"subfolder": subfolder, **form, **dtype, **revision}
        return stored.load(cls, self.pretrained if self.folder is None else str(self.folder), options)

    def processor(self, part: str) -> ImageProcessor:
        """The processor of images in a part. Raises UserError if its file is missing."""
        return self.read(f"{part}/{PROCESSOR}", lambda file: ImageProcessor.read(file, f"is it a {self.name}?"))

    def read(self, name: str, read: Callable[[Path], T]) -> T:
        """What `read` makes of a file of the pipeline. Raises UserError if it is missing or not of such a pipeline."""
        try:
            if self.folder is None:
                file = Path(hf_hub_download(self.pretrained, name, revision=self.revision))
            else:
                file = self.folder / name
            file.open("rb").close()
        except (OSError, ValueError) as error:
            unreachable = f"is neither a folder nor a hub name that can be reached ({stored.first_line(error)})"
            problem = unreachable if self.folder is None else f"has no readable {name}"
            raise UserError(f"model.pretrained: {self.pretrained} {problem}") from error
        return read(file)
