"""CUDA graphs of denoisers, for passes whose kernels take less time than their launches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from z1g.networks.denoiser import Condition, Denoiser

WARM_UP = 3
"""Number of passes before the capture, in which libraries select their kernels and workspaces."""


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], None]


class Replayed:
    """A frozen denoiser that replays one CUDA graph per input shape. Without a GPU it calls the denoiser."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.clip_sample, self.objective, self.schedule = denoiser.clip_sample, denoiser.objective, denoiser.schedule
        self.parts = denoiser.parts
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        """See `Denoiser.nothing`."""
        return self.denoiser.nothing(zero_latent, batch)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """See `Denoiser.forward`. The result is overwritten by the next call."""
        arguments = (noisy, timestep, condition.latent, condition.embedding, condition_noise)
        if noisy.device.type != "cuda":
            return self._forward(*arguments)
        shapes = tuple(tensor.shape for tensor in arguments)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(arguments)
        recording = self._recordings[shapes]
        for static, new in zip(recording.inputs, arguments, strict=True):
            static.copy_(new)
        recording.replay()
        return recording.output

    def _forward(self, noisy: Tensor, timestep: Tensor, latent: Tensor, embedding: Tensor, noise: Tensor) -> Tensor:
        output: Tensor = self.denoiser(noisy, timestep, Condition(latent, embedding), noise)
        return output

    def _record(self, arguments: tuple[Tensor, ...]) -> _Recording:
        inputs = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in arguments)
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
