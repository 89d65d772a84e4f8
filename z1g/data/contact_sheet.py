"""One image of many objects, for visual inspection of a chunk."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 128
LABEL = 14
COLUMNS = 8
BACKGROUND = (200, 200, 200)
INK, FAULT = (70, 70, 70), (160, 40, 40)
CHARACTERS = 20


class ContactSheet:
    """Objects in rows of eight: an image and the object's id, or the reason why it is missing."""

    def __init__(self, n_objects: int) -> None:
        rows = max(1, -(-n_objects // COLUMNS))
        size = (min(max(n_objects, 1), COLUMNS) * CELL, rows * (CELL + LABEL))
        self.image = Image.new("RGB", size, BACKGROUND)
        self._draw = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(10)
        self._n = 0

    def add(self, label: str, rgba: NDArray[np.uint8] | None, fault: str = "") -> None:
        """The next cell: an image [H,W,4] with straight alpha, or None and the fault."""
        row, column = divmod(self._n, COLUMNS)
        x, y = column * CELL, row * (CELL + LABEL)
        self._n += 1
        if rgba is not None:
            # Premultiply before resizing, so that colors of transparent pixels do not bleed into the outline.
            small = Image.fromarray(rgba, "RGBA").convert("RGBa").resize((CELL, CELL), Image.Resampling.BOX)
            straight = small.convert("RGBA")
            self.image.paste(straight, (x, y), straight)
        else:
            for line, words in enumerate(_wrapped(fault)):
                self._draw.text((x + 4, y + 4 + 12 * line), words, FAULT, self._font)
        self._draw.text((x + 4, y + CELL), _short(label), INK if rgba is not None else FAULT, self._font)


def _short(label: str) -> str:
    return label if len(label) <= CHARACTERS else label[: CHARACTERS - 1] + "…"


def _wrapped(text: str) -> Sequence[str]:
    """Lines of a reason, at most as many as fit into a cell."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= CHARACTERS:
            lines.append("")
        lines[-1] += f"{word} "
    return [line[:CHARACTERS] for line in lines[: CELL // 12 - 1]]
