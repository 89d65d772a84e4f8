"""Codes written by an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from z1g.codes.base import CodeSource
from z1g.core.needs import require_file
from z1g.core.slots import FileContent

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook


class CachedCodes(CodeSource):
    """Codes from a `codes.safetensors` file, one tensor per object id."""

    kind: Literal["cache"] = "cache"
    path: Annotated[str, FileContent()] = Field(
        "", description="the file, for example results/codes/<id>/codes.safetensors; identified by its content"
    )

    lr: float = Field(
        1e-2, gt=0, le=1000, description="learning rate that optimizes the codes of objects missing in the file"
    )

    def check(self) -> None:
        remedy = "run the ablation that writes it first" if self.path else "codes of kind 'cache' need a path: "
        if not self.path:
            remedy += "set autodecoder.codes.path to a codes.safetensors file"
        require_file("path", self.path, remedy)

    def book(self, ids: list[str], shape: tuple[int, ...], folder: Path = Path()) -> CodeBook:
        from z1g.codes.book import FixedBook, read_codes

        return FixedBook(ids, shape, read_codes(Path(self.path)), self.path)
