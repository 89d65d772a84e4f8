"""The decoder as it is."""

from typing import Literal

from z1g.representations.mosaic.path.base import DecoderPath


class Plain(DecoderPath):
    """Splatter images have the size of the input views; fitted ones of a smaller size are enlarged to compare."""

    kind: Literal["plain"] = "plain"

    def side(self, input_size: int, size: int) -> int:
        return input_size

    def misfit(self, input_size: int, size: int, levels: int) -> str | None:
        if input_size < size:
            return f"decodes to {input_size} pixels a view, autodecoder.input_size, below splat.size {size}"
        return None
