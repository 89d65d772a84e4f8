"""Code books: what a code source is while training runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from z1g.errors import UserError

Posterior = Literal["mean", "sample", "object"]
"""What to take of the encoder's posterior: its mean, a new sample, or the one sample that each object has."""
Encode = Callable[[Posterior], Tensor]
"""Codes [B,C,h,w] of the batch's input sheets."""


class CodeBook(nn.Module):
    """Codes of the training objects."""

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        """Codes [B,C,h,w] of the objects with these indices [B]."""
        raise NotImplementedError

    def after_backward(self, accelerator: Accelerator) -> None:
        """Update codes from their gradients, where they have any."""


class EncodedBook(CodeBook):
    """Codes are what the encoder says."""

    def __init__(self, sample: bool) -> None:
        super().__init__()
        self.sample = sample

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        return encode("sample" if self.sample and self.training else "mean")


class FixedBook(CodeBook):
    """Codes read from a file."""

    def __init__(self, ids: list[str], shape: tuple[int, int, int], path: Path) -> None:
        """Raises UserError where the file is broken, lacks an object or holds codes of another shape."""
        super().__init__()
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as safetensors: {error}") from error
        missing = [name for name in ids if name not in stored]
        if missing:
            raise UserError(
                f"{path} has no code for {missing[0]} and {len(missing) - 1} more; it belongs to other data"
            )
        other = [tuple(stored[name].shape) for name in ids if tuple(stored[name].shape) != shape]
        if other:
            raise UserError(f"{path} holds codes of shape {other[0]}, but this configuration needs {shape}")
        self.codes = torch.stack([stored[name] for name in ids])

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        return self.codes[index.cpu()].to(index.device)


class OptimisedBook(CodeBook):
    """Codes are parameters of their own, each with its own Adam state.

    They stay on the CPU; only the batch's rows visit the device. Every rank applies every rank's updates, so the
    copies agree. Adam: Kingma & Ba 2015, algorithm 1, with a step count per object.
    """

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(self, n: int, shape: tuple[int, int, int], lr: float, start: str, reset: bool, seed: int) -> None:
        super().__init__()
        self.lr, self.start, self.reset = lr, start, reset
        generator = torch.Generator().manual_seed(seed)
        self.codes = 1e-4 * (2 * torch.rand(n, *shape, generator=generator) - 1)
        self.moments = torch.zeros(2, n, *shape)
        self.visits = torch.zeros(n, dtype=torch.int64)
        self._open: list[tuple[Tensor, Tensor]] = []

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        rows = index.cpu()
        if self.start == "encoder" and bool((self.visits[rows] == 0).any()):
            encoded = encode("object").detach().float().cpu()
            fresh = self.visits[rows] == 0
            self.codes[rows[fresh]] = encoded[fresh]
        code = self.codes[rows].to(index.device)
        if self.training and torch.is_grad_enabled():
            code.requires_grad_(True)
            self._open.append((rows, code))
        return code

    def after_backward(self, accelerator: Accelerator) -> None:
        rows = torch.cat([rows for rows, _ in self._open])
        gradients = torch.cat([_gradient(code) for _, code in self._open])
        codes = torch.cat([code.detach().cpu() for _, code in self._open])
        self._open = []
        if accelerator.num_processes > 1:
            # DDP averages over ranks what is a mean over one rank here.
            gradients = accelerator.gather(gradients.to(accelerator.device)).cpu() / accelerator.num_processes
            rows = accelerator.gather(rows.to(accelerator.device)).cpu()
            # Only the rank that saw an object first knows where its code starts.
            self.codes[rows] = accelerator.gather(codes.to(accelerator.device)).cpu()
        for row in rows.unique().tolist():
            self._adam(row, gradients[rows == row].sum(dim=0))

    def _adam(self, row: int, gradient: Tensor) -> None:
        if not bool(torch.isfinite(gradient).all()):
            return
        if self.reset:
            self.visits[row] = 0
            self.moments[:, row] = 0
        self.visits[row] += 1
        first, second = self.moments[0, row], self.moments[1, row]
        first.lerp_(gradient, 1 - self.BETAS[0])
        second.lerp_(gradient**2, 1 - self.BETAS[1])
        t = int(self.visits[row])
        corrected = (second / (1 - self.BETAS[1] ** t)).sqrt() + self.EPSILON
        self.codes[row] -= self.lr * first / (1 - self.BETAS[0] ** t) / corrected

    def get_extra_state(self) -> dict[str, Any]:
        return {"codes": self.codes.clone(), "moments": self.moments.clone(), "visits": self.visits.clone()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.codes, self.moments, self.visits = (state[name].cpu() for name in ("codes", "moments", "visits"))


def _gradient(code: Tensor) -> Tensor:
    return torch.zeros_like(code).cpu() if code.grad is None else code.grad.float().cpu()
