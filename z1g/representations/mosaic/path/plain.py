"""The decoder without resizing."""

from typing import Literal

from z1g.representations.mosaic.path.base import DecoderPath


class Plain(DecoderPath):
    """Splatter images have the size of the input views; smaller fitted splats are enlarged for comparison."""

    kind: Literal["plain"] = "plain"

    def side(self, input_size: int, size: int) -> int:
        return input_size

    def problem(self, input_size: int, size: int, levels: int) -> str | None:
        if input_size < size:
            return f"decodes to {input_size} pixels per view (representation.input_size), below splat.size {size}"
        return None
