"""CUDA graphs: a pass recorded once and replayed by one call, where launching its kernels takes longer than they."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from z1g.networks.denoiser import Condition, Denoiser

WARM_UP = 3
"""Passes before recording: libraries choose their kernels and workspaces in them."""


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], None]


class Replayed:
    """A frozen denoiser whose calls are replays of one recording for each shape. Elsewhere than on a GPU: itself."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        """See `Denoiser.nothing`."""
        return self.denoiser.nothing(zero_latent, batch)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """See `Denoiser.forward`. The result is overwritten by the next call."""
        given = (noisy, timestep, condition.latent, condition.embedding, condition_noise)
        if noisy.device.type != "cuda":
            return self._forward(*given)
        shapes = tuple(tensor.shape for tensor in given)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(given)
        recording = self._recordings[shapes]
        for kept, new in zip(recording.inputs, given, strict=True):
            kept.copy_(new)
        recording.replay()
        return recording.output

    def _forward(self, noisy: Tensor, timestep: Tensor, latent: Tensor, embedding: Tensor, noise: Tensor) -> Tensor:
        output: Tensor = self.denoiser(noisy, timestep, Condition(latent, embedding), noise)
        return output

    def _record(self, given: tuple[Tensor, ...]) -> _Recording:
        inputs = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in given)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forward(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._forward(*inputs)
        return _Recording(inputs, output, graph.replay)
