"""The discriminator of stage 1's renders, with its own optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.core.weights import load_exactly
from z1g.losses import Comparison
from z1g.losses.adversarial import Adversarial, discriminator_hinge, generator_hinge, mean
from z1g.losses.windows import windows
from z1g.networks.discriminator import FeatureDiscriminator, PatchDiscriminator
from z1g.networks.perceptual import SMALLEST, resized, st_lpips
from z1g.representations.codec import Codec
from z1g.training.gradients import average
from z1g.training.options import TrainOptions

RGB = 3
BETAS = (0.5, 0.9)
"""Those of VQGAN's discriminator."""
EVERY = 10
"""Steps between measurements of the gradient of the other losses, each a further backward pass of them."""
DECAY = 0.9
"""How fast the norm of the own gradient may fall from one step to the next.

It grows by a multiple within a few steps when the discriminator finds a difference, and a ratio that is known a step
late must not be that of a step whose gradient happened to be small.
"""
LEAST, MOST = 1e-6, 1e4
"""Added to the norm that divides (Esser et al. 2021, equation 7), and the bound of the ratio (of their code)."""


class Adversary(nn.Module):
    """Judges renders in `forward` and learns in `after_backward`, like a code book; the training loop knows neither.

    Its weights have no `requires_grad`, so that the loop's optimizer, average and checkpoints do not hold them, and so
    that the decoder's backward pass does not reach them. All it knows is in its extra state.

    Gradients and ratios are those of the whole batch of all ranks, whatever the micro-batches. A ratio is therefore
    known after a step only, and is used from the next one on.
    """

    norms: Tensor

    def __init__(self, options: Adversarial, codec: Codec, train: TrainOptions) -> None:
        """codec: with the decoder that learns from it. train: of stage 1.

        Raises UserError if an adaptive weight is asked for and the decoder's last layer is not trained.
        """
        super().__init__()
        if options.adaptive and not codec.last_layers():
            raise UserError(
                "autodecoder.adversarial.adaptive compares gradients at the decoder's last layer, which is not "
                "trained; set it to false"
            )
        self.options, self.start = options, math.ceil(options.start * train.steps)
        with seeded(train.seed):
            network = _network(options)
        self.discriminator = network.requires_grad_(False)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=options.lr, betas=BETAS, fused=True)
        self.steps = 0
        # Of the gradients of the other losses and of the own term; with zeros, the ratio is 0.
        self.register_buffer("norms", torch.zeros(2), persistent=False)
        self.gradients: list[Tensor] = []
        self.slopes: list[Tensor] = []
        self.rows = 0

    @staticmethod
    def of(options: Adversarial | None, codec: Codec, train: TrainOptions) -> Adversary | None:
        """The adversary of a decoder, None if it has none or is not trained."""
        trained = any(parameter.requires_grad for parameter in codec.decoder.parameters())
        return Adversary(options, codec, train) if options is not None and trained else None

    def forward(self, loss: Tensor, pair: Comparison, layers: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the decoder's term to `loss`, a mean over the objects of `pair`; compute the discriminator's gradients.

        layers: the decoder's last, see `Codec.last_layers`. Returns the sum and figures for the log: `adversarial`, the
        term; `adversarial_weight`, its factor; `discriminator`, the loss of the discriminator; `discriminator_true` and
        `discriminator_rendered`, its mean outputs. Raises ValueError if there are no renders.
        """
        if pair.rgb is None or pair.rgb_true is None:
            raise ValueError("the adversarial loss needs renders")
        rendered, true = (
            self.seen(rgb, alpha, pair.epoch)
            for rgb, alpha in ((pair.rgb, pair.alpha), (pair.rgb_true, pair.alpha_true))
        )
        rows, figures = len(pair.rgb), self._judge([x.detach() for x in rendered], true, len(pair.rgb))
        started = self.steps >= self.start
        weight = self.options.weight * self.ratio() * started
        if started or self._measures_others():
            term = generator_hinge(self._outputs(rendered))
            if self.options.adaptive:
                self._measure([term, *([loss] if self._measures_others() else [])], layers, rows)
            if started:
                loss = loss + weight * term
        return loss, {**figures, "adversarial": -figures["discriminator_rendered"], "adversarial_weight": weight}

    def seen(self, rgb: Tensor, alpha: Tensor | None, epoch: Tensor | None) -> list[Tensor]:
        """What the discriminator sees of views [B,V,3,H,W] and [B,V,1,H,W] in an epoch [B].

        Of pixels one tensor [B·V,3 or 4,R,R] in -1..1; of features those [B·V,C,h,w] of each level.
        """
        views = rgb if not self.options.alpha or alpha is None else torch.cat([rgb, alpha], dim=2)
        views = views[:, : self.options.views].float()
        if self.options.crop:
            views = windows(views, self.options.resolution, epoch)
        images = resized(views.flatten(0, 1), self.options.resolution)
        return st_lpips("alex").features(images) if self.options.judge == "features" else [2 * images - 1]

    def _outputs(self, seen: Sequence[Tensor]) -> list[Tensor]:
        """The discriminator's outputs, in float32."""
        outputs = self.discriminator(seen) if self.options.judge == "features" else [self.discriminator(*seen)]
        return [output.float() for output in outputs]

    def _judge(self, rendered: Sequence[Tensor], true: Sequence[Tensor], rows: int) -> dict[str, Tensor]:
        """Add the gradients of the discriminator's loss, times the rows of this pass; returns its figures."""
        parameters = list(self.discriminator.parameters())
        self.discriminator.requires_grad_(True)
        try:
            with torch.enable_grad():
                both = self._outputs([torch.cat(pair) for pair in zip(true, rendered, strict=True)])
                outputs = zip(*(output.chunk(2) for output in both), strict=True)
                of_true, of_rendered = (list(part) for part in outputs)
                loss = discriminator_hinge(of_true, of_rendered)
                gradients = torch.autograd.grad(rows * loss, parameters)
        finally:
            self.discriminator.requires_grad_(False)
        self.gradients = _sum(self.gradients, gradients)
        self.rows += rows
        return {
            "discriminator": loss.detach(),
            "discriminator_true": mean(of_true).detach(),
            "discriminator_rendered": mean(of_rendered).detach(),
        }

    def ratio(self) -> Tensor:
        """The norm of the gradient of the other losses over that of the own term; 1 without an adaptive weight."""
        if not self.options.adaptive:
            return torch.ones_like(self.norms[0])
        return (self.norms[0] / (self.norms[1] + LEAST)).clamp(max=MOST)

    def _measures_others(self) -> bool:
        """Whether the other losses are measured: in the step before the first that uses it, then in every tenth."""
        ahead = self.steps + 1 - self.start
        return self.options.adaptive and ahead >= 0 and (ahead % EVERY == 0 or self.steps == 0)

    def _measure(self, terms: Sequence[Tensor], layers: Sequence[Tensor], rows: int) -> None:
        """Add the gradients of terms, the own first, at the last layers, times the rows of this pass."""
        slopes = [torch.autograd.grad(rows * term, layers, retain_graph=True) for term in terms]
        self.slopes = _sum(self.slopes, [torch.cat([part.flatten() for part in slope]) for slope in slopes])

    def after_backward(self, accelerator: Accelerator) -> None:
        """One step of the discriminator with the gradients of all passes of all ranks; none if one is not finite."""
        found = [*self.gradients, *self.slopes]
        torch._foreach_div_(found, self.rows)
        if accelerator.num_processes > 1:
            average(found, accelerator.num_processes)
        self._note()
        self._step()
        self.steps += 1
        self.discard()

    def _note(self) -> None:
        """Take over the norms of the gradients at the last layers, those that are finite."""
        if not self.slopes:
            return
        others, own = self.norms
        now = [slope.norm() for slope in self.slopes]
        seen = torch.stack([now[1] if len(now) == 2 else others, torch.maximum(now[0], DECAY * own)])
        self.norms.copy_(torch.where(seen.isfinite(), seen, self.norms))

    def _step(self) -> None:
        finite = torch.stack([gradient.isfinite().all() for gradient in self.gradients]).all()
        for parameter, gradient in zip(self.discriminator.parameters(), self.gradients, strict=True):
            # Images that are channels_last have such gradients, which the fused optimizer refuses.
            parameter.grad = gradient.contiguous()
        # The fused kernels read this flag on the device, as with a gradient scaler.
        self.optimizer.found_inf = 1 - finite.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.discriminator.iterate()

    def discard(self) -> None:
        """Forget the gradients of passes since the last step."""
        self.gradients, self.slopes, self.rows = [], [], 0

    def get_extra_state(self) -> dict[str, Any]:
        weights = {name: value.clone() for name, value in self.discriminator.state_dict().items()}
        return {
            "weights": weights, "optimizer": self.optimizer.state_dict(), "steps": self.steps,
            "norms": self.norms.clone(),
        }  # fmt: skip

    def set_extra_state(self, state: dict[str, Any]) -> None:
        load_exactly(self.discriminator, state["weights"], "the discriminator in the checkpoint")
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        self.norms.copy_(state["norms"])


def _network(options: Adversarial) -> PatchDiscriminator | FeatureDiscriminator:
    if options.judge == "pixels":
        return PatchDiscriminator(RGB + options.alpha, options.channels, options.layers)
    levels = st_lpips("alex").features(torch.zeros(1, RGB, SMALLEST, SMALLEST))
    return FeatureDiscriminator([level.shape[1] for level in levels], options.channels)


def _sum(total: list[Tensor], added: Sequence[Tensor]) -> list[Tensor]:
    if not total:
        return list(added)
    torch._foreach_add_(total, list(added))
    return total
