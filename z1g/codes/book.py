"""Code books, which hold the codes of a source during training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.recorded import checked

Posterior = Literal["mean", "sample", "object"]
"""Codes from the encoder's posterior: its mean, a new sample, or a fixed sample per object."""
Encode = Callable[[Posterior], Tensor]
"""Encodes the batch's objects to codes [B,*code_shape]."""


class CodeBook(nn.Module):
    """Codes of the training objects."""

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        """Codes [B,*code_shape] of the objects with these indices [B]."""
        raise NotImplementedError

    def after_backward(self, accelerator: Accelerator) -> None:
        """Update the codes from their gradients, if they have any."""

    def discard(self) -> None:
        """Forget the codes that were looked up since the last update."""


class EncodedBook(CodeBook):
    """Codes of the encoder."""

    def __init__(self, sample: bool) -> None:
        super().__init__()
        self.sample = sample

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        return encode("sample" if self.sample and self.training else "mean")


def read_codes(path: Path) -> dict[str, Tensor]:
    """Codes by object id. Raises UserError if the file cannot be read, or is not as its job wrote it."""
    try:
        return load_file(checked(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error


class FixedBook(CodeBook):
    """Codes that training does not change."""

    def __init__(self, ids: list[str], shape: tuple[int, ...], stored: dict[str, Tensor], origin: str) -> None:
        """stored: codes by id. origin: their source, for messages.

        Raises UserError if one is missing or has another shape.
        """
        super().__init__()
        missing = [name for name in ids if name not in stored]
        if missing:
            raise UserError(
                f"{origin} has no code for {missing[0]} and {len(missing) - 1} more; it belongs to other data"
            )
        wrong = [tuple(stored[name].shape) for name in ids if tuple(stored[name].shape) != shape]
        if wrong:
            raise UserError(f"{origin} contains codes of shape {wrong[0]}, but this configuration needs {shape}")
        self.codes = torch.stack([stored[name] for name in ids])

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        return self.codes[index.cpu()].to(index.device)


class OptimizedBook(CodeBook):
    """An embedding table of codes, each with its own Adam state.

    The table stays on the CPU; only the batch's rows are copied to the device. Every rank applies the updates of all
    ranks, so that the copies agree. Adam: Kingma & Ba 2015, algorithm 1, with a step count per object.
    """

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(self, n: int, shape: tuple[int, ...], lr: float, start: str, reset: bool, seed: int) -> None:
        super().__init__()
        self.lr, self.start, self.reset = lr, start, reset
        generator = torch.Generator().manual_seed(seed)
        self.codes = 1e-4 * (2 * torch.rand(n, *shape, generator=generator) - 1)
        self.moments = torch.zeros(2, n, *shape)
        self.visits = torch.zeros(n, dtype=torch.int64)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def lookup(self, index: Tensor, encode: Encode) -> Tensor:
        rows = index.cpu()
        if self.start == "encoder" and bool((self.visits[rows] == 0).any()):
            encoded = encode("object").detach().float().cpu()
            fresh = self.visits[rows] == 0
            self.codes[rows[fresh]] = encoded[fresh]
        code = self.codes[rows].to(index.device)
        if self.training and torch.is_grad_enabled():
            code.requires_grad_(True)
            self._pending.append((rows, code))
        return code

    def discard(self) -> None:
        self._pending = []

    def after_backward(self, accelerator: Accelerator) -> None:
        rows = torch.cat([rows for rows, _ in self._pending])
        gradients = torch.cat([_gradient(code) for _, code in self._pending])
        codes = torch.cat([code.detach().cpu() for _, code in self._pending])
        self._pending = []
        if accelerator.num_processes > 1:
            # Losses are means over one rank; DDP averages the other gradients over ranks.
            gradients = accelerator.gather(gradients.to(accelerator.device)).cpu() / accelerator.num_processes
            rows = accelerator.gather(rows.to(accelerator.device)).cpu()
            # Only the rank of an object's first batch has its initial code.
            self.codes[rows] = accelerator.gather(codes.to(accelerator.device)).cpu()
        # The gradients of an object that occurs twice in a batch are summed.
        rows, which = rows.unique(return_inverse=True)
        self._adam(rows, torch.zeros(len(rows), *gradients.shape[1:]).index_add_(0, which, gradients))

    def _adam(self, rows: Tensor, gradients: Tensor) -> None:
        """One step of Adam for the rows, which are unique, with a finite gradient."""
        finite = gradients.flatten(1).isfinite().all(dim=1)
        rows, gradients = rows[finite], gradients[finite]
        if self.reset:
            self.visits[rows] = 0
            self.moments[:, rows] = 0
        self.visits[rows] += 1
        first = self.moments[0, rows].lerp_(gradients, 1 - self.BETAS[0])
        second = self.moments[1, rows].lerp_(gradients.square(), 1 - self.BETAS[1])
        self.moments[0, rows], self.moments[1, rows] = first, second
        steps = self.visits[rows].double()
        corrections = [(1 - beta**steps).float().view(-1, *[1] * (self.codes.ndim - 1)) for beta in self.BETAS]
        self.codes[rows] -= self.lr * (first / corrections[0]) / ((second / corrections[1]).sqrt() + self.EPSILON)

    def get_extra_state(self) -> dict[str, Any]:
        return {"codes": self.codes.clone(), "moments": self.moments.clone(), "visits": self.visits.clone()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.codes, self.moments, self.visits = (state[name].cpu() for name in ("codes", "moments", "visits"))


def _gradient(code: Tensor) -> Tensor:
    return torch.zeros_like(code).cpu() if code.grad is None else code.grad.float().cpu()
