"""Posteriors of a frozen encoder, computed once per object."""

from collections.abc import Callable

import torch
from torch import Tensor


class KeptPosteriors:
    """Cache of the posterior means and standard deviations of N objects on the device `place`, filled at first use.

    Each object is encoded separately, so that its posterior does not depend on the batch of its first use.
    """

    def __init__(self, n: int, place: torch.device) -> None:
        self.n, self.place = n, place
        self._missing = set(range(n))
        self._moments: Tensor | None = None

    def of(self, index: Tensor, posterior: Callable[[int], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B,...] of objects [B]; posterior: that of the batch's i-th object, [1,...] each."""
        # Once the cache is full, reading the index on the host, which synchronizes, is unnecessary.
        if self._missing:
            for i, row in enumerate(index.tolist()):
                if row in self._missing:
                    self._keep(row, torch.stack(posterior(i)).detach()[:, 0])
        if self._moments is None:
            raise ValueError("posteriors of no object were requested")
        mean, deviation = self._moments[index.to(self.place)].to(index.device).unbind(dim=1)
        return mean, deviation

    def _keep(self, row: int, moments: Tensor) -> None:
        if self._moments is None:
            self._moments = torch.empty((self.n, *moments.shape), dtype=moments.dtype, device=self.place)
        self._moments[row] = moments.to(self.place)
        self._missing.discard(row)
