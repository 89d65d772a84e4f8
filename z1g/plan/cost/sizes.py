"""What the GPU memory of a stage depends on: networks and sizes, as a key of measured peaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from z1g.networks.weights.published_pipeline import PublishedPipeline
from z1g.plan.identity import digest
from z1g.sources.meshes import Meshes

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

WITHOUT_EFFECT = frozenset({"alone_share", "bias", "crop", "init_seed", "l1", "log_max", "log_min", "weight"})
"""Options that have no part in what takes memory."""


def key_of(experiment: Experiment, stage: str) -> str:
    """A key that two configurations share if a stage takes equal memory in both, with as many objects at once.

    Recomputation, Adam's moments, the average of the weights and trained weights are not part of it.
    """
    of_stages = {
        "fit": _fit, "autodecoder": _autodecoder, "codes": _codes, "unet": _unet, "infer": _infer, "metrics": _metrics
    }  # fmt: skip
    sizes = of_stages[stage](experiment)
    return digest({"stage": stage, "splats": experiment.splat.size, **sizes})


def searches_codes(experiment: Experiment) -> bool:
    """Whether stage `codes` searches codes of test objects, rather than only encoding them."""
    return experiment.autodecoder.test_lr > 0 or experiment.autodecoder.codes.kind != "encoder"


def _networks(experiment: Experiment) -> dict[str, Any]:
    model = experiment.model
    # Published weights have one size, whatever folder they are in.
    published = isinstance(model, PublishedPipeline)
    return {
        "model": model.kind if published else _bare(model.model_dump(mode="json")),
        "representation": _bare(experiment.representation.model_dump(mode="json")),
    }


def _fit(experiment: Experiment) -> dict[str, Any]:
    fit = experiment.fit
    return {
        "image": _image(experiment),
        "start": fit.start.kind,  # type: ignore[attr-defined]  # of every kind
        "views": [fit.views_per_step, experiment.camera.n_views],
        "losses": _losses(fit.losses),
    }


def _autodecoder(experiment: Experiment) -> dict[str, Any]:
    options, judged = experiment.autodecoder, experiment.autodecoder.adversarial
    return {
        **_networks(experiment),
        **_trained(options),
        "image": _image(experiment),
        "codes": [options.codes.kind, options.codes.trains_encoder],
        "views": [options.views, options.render_inputs],
        "losses": _losses(options.losses),
        "mixed": options.mix_diffusion.interval is not None,
        "adversarial": judged and _bare(judged.model_dump(mode="json", exclude={"start", "lr"})),
    }


def _codes(experiment: Experiment) -> dict[str, Any]:
    options = experiment.autodecoder
    searched = searches_codes(experiment)
    search = [options.views, options.render_inputs, _losses(options.losses)] if searched else None
    return {**_networks(experiment), "image": _image(experiment), "search": search}


def _metrics(experiment: Experiment) -> dict[str, Any]:
    choices = experiment.metrics
    return {
        **_networks(experiment),
        "image": _image(experiment),
        "views": experiment.camera.test_views,
        "metrics": [_bare(metric.model_dump(mode="json")) for metric in choices.metrics.values()],
        "protocol": _bare(choices.protocol.model_dump(mode="json")),
    }


def _unet(experiment: Experiment) -> dict[str, Any]:
    options, rendered = experiment.unet, experiment.unet.rendered
    return {
        **_networks(experiment),
        **_trained(options),
        "objective": options.objective,
        "rendered": rendered and [rendered.views, _image(experiment), _losses(rendered.losses)],
        "condition": options.condition_size,
        "attention": _attention(options.attention),
        # Its second training has another peak, which is not measured.
        "distilled": options.distill is not None,
    }


def _infer(experiment: Experiment) -> dict[str, Any]:
    options = experiment.infer
    return {
        **_networks(experiment),
        "condition": experiment.unet.condition_size,
        "objective": experiment.unet.objective,
        "codes": options.codes.kind,
        "guided": options.guidance != 1,
        "precision": options.precision,
        "attention": _attention(options.attention),
        "graphs": options.cuda_graphs,
    }


def _trained(options: Any) -> dict[str, Any]:
    return {"bf16": options.bf16, "precision": options.train.precision, "fused": options.train.speed.fused}


def _attention(kernels: str) -> str:
    """Kernels that take as much memory; those of xformers take more, all others as much as torch's choice."""
    return kernels if kernels == "xformers" else "auto"


def _image(experiment: Experiment) -> int | None:
    """Width of a rendered image in pixels, None if the data do not say."""
    return experiment.data.renderer.resolution if isinstance(experiment.data, Meshes) else None


def _losses(losses: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _bare(loss.model_dump(mode="json")) for name, loss in losses.items() if loss.weight > 0}


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(entry) for name, entry in value.items() if name not in WITHOUT_EFFECT}
    return value
