"""The configuration that options of the original mean, stage by stage."""

from __future__ import annotations

import math
from typing import Any

from z1g.config.original_flags import Acts
from z1g.core.errors import UserError

Values = dict[str, Any]
SCHEDULES = {"plat": "plateau", "cosann": "cosine_restarts", "onecyc": "one_cycle"}
"""Kinds of schedules by the beginnings of the original's names, in small letters."""
DOWNSAMPLERS = {
    "DownsampleModule": "downsample_conv", "AvgPool": "average_pool", "ConvAvgPool": "conv_average_pool",
}  # fmt: skip
ATTRIBUTES = {"pos": "position", "position": "position", "opacity": "opacity", "scale": "scale",
              "rotation": "rotation", "rgb": "rgb"}  # fmt: skip
"""Attributes by the original's names."""


def overlay(stage: Acts, values: Values, given: set[str], gpus: int, objects: int) -> Values:
    """The options of z1g that the original's `values` mean in one of its programs.

    given: names of the flags in the command. gpus: processes. objects: of the data set. Raises UserError for values
    that the original does not have.
    """
    parts = _shared(values, given)
    if stage == "autodecoder":
        parts["autodecoder"] = _autodecoder(values, given)
        parts["autodecoder"]["train"] = _train(values, gpus, objects, together=True)
        parts["autodecoder"]["train"]["precision"] = "fp32" if values["mixed_precision"] == "no" else "auto"
        parts["resources"] = {"autodecoder": {"gpus": gpus}}
    elif stage == "unet":
        parts["unet"] |= {**_finetune(values), "train": _train(values, gpus, objects, together=False)}
    else:
        parts["infer"] = {"codes": _inferred(values)}
    return parts


def _shared(values: Values, given: set[str]) -> Values:
    parts: Values = {
        "camera": {"fov_y_deg": values["fovy"], "radius": values["cam_radius"]},
        "splat": {"size": values["splat_size"]},
        "model": {"pretrained": values["model_path"]},
        "representation": {
            "input_size": values["input_size"],
            "decoder": {"mode": _mode(values["decoder_mode"]), "path": _path(values)},
            "scale": _scale(values),
        },
        "unet": {"condition_size": values["input_size"]},
    }
    folders = {"renders": "data_path_rendering", "splats": "data_path_splatter_gt"}
    known = {key: values[flag] for key, flag in folders.items() if flag in given and "$" not in str(values[flag])}
    return {"data": {"kind": "original", **known}, **parts} if known else parts


def _train(values: Values, gpus: int, objects: int, together: bool) -> Values:
    """Options of training. together: processes average their gradients; else the first one's result counts."""
    of_one = values["batch_size"] * values["gradient_accumulation_steps"]
    epoch = max(math.ceil(objects / (of_one * gpus)), 1)
    return {
        "steps": values["num_epochs"] * epoch,
        "batch_size": of_one * gpus if together else of_one,
        "optimizer": {"lr": values["lr"], "clip_norm": values["gradient_clip"]},
        "schedule": _schedule(values),
        "log_every": epoch,
        "validate_every": values["eval_iter"] * epoch,
        "checkpoint_every": values["save_iter"] * epoch,
        "workers": values["num_workers"],
    }


def _schedule(values: Values) -> Values:
    name = str(values["lr_scheduler"])
    kind = next((kind for start, kind in SCHEDULES.items() if name.lower().startswith(start)), None)
    if kind is None:
        raise UserError(f"--from-command: --lr_scheduler {name} is none of Plat, CosAnn, OneCycle")
    if kind == "one_cycle":
        return {"kind": kind}
    if kind == "cosine_restarts":
        return {"kind": kind, "min_lr": values["min_lr_scheduled"]}
    return {
        "kind": kind,
        "patience": values["lr_scheduler_patience"],
        "factor": values["lr_scheduler_factor"],
        "min_lr": values["min_lr_scheduled"],
    }


def _autodecoder(values: Values, given: set[str]) -> Values:
    rendering = values["lambda_rendering"]
    logarithms = [ATTRIBUTES.get(name, name) for name in values["attr_use_logrithm_loss"]]
    options: Values = {
        "codes": _codes(values),
        "views": values["num_views"] - values["num_input_views"],
        "render_inputs": values["render_input_views"],
        "validation_background": values["bg"],
        "losses": {
            "rgb": {"weight": rendering},
            "alpha": {"weight": rendering if rendering != 0 else values["lambda_alpha"]},
            "perceptual": {"weight": values["lambda_lpips"]},
            "splat": {
                "weight": values["lambda_splatter"],
                "every": values["splatter_guidance_interval"],
                "warmup_passes": values["splatter_guidance_warmup"] + 1,
                "log": logarithms,
            },
        },
    }
    if "mix_diffusion_interval" in given and values["mix_diffusion_interval"] > 0:
        options["mix_diffusion"] = {"interval": values["mix_diffusion_interval"]}
    return options


def _codes(values: Values) -> Values:
    if values["codes_from_encoder"]:
        return {"kind": "encoder"}
    if values["codes_from_diffusion"]:
        return {"kind": "diffusion"}
    if values["codes_from_cache"]:
        return {"kind": "cache", "path": values["code_cache_dir"] or ""}
    start = "encoder" if values["code_init_from_0123_encoder"] else "uniform"
    return {"kind": "optimized", "start": start, "lr": values["optimizer"].get("lr", 1e-2)}


def _inferred(values: Values) -> Values:
    if values["lipschitz_coefficient"] is not None:
        return {"kind": "probe", "coefficient": values["lipschitz_coefficient"]}
    if values["one_step_diffusion"] is not None:
        return {"kind": "one_step", "timestep": values["one_step_diffusion"]}
    if values["codes_from_encoder"]:
        return {"kind": "encoder"}
    return {"kind": "diffusion" if values["codes_from_diffusion"] else "cache"}


def _finetune(values: Values) -> Values:
    model = str(values["model_type"]).lower()
    out: Values = {"finetune": {"kind": "lora", "rank": values["lora_rank"]} if "lora" in model else {"kind": "full"}}
    if "render" in model:
        out["rendered"] = {"views": values["num_views"] - values["num_input_views"]}
    return out


def _mode(name: str) -> str:
    if name.startswith("v0"):
        return "all"
    if name.startswith("v1_fix_rgb"):
        return "fixed_rgb"
    raise UserError(f"--from-command: --decoder_mode {name} is neither v0_unfreeze_all nor v1_fix_rgb; v2 never worked")


def _path(values: Values) -> Values:
    if values["downsample_after_decode_latents"]:
        kind = DOWNSAMPLERS.get(values["downsample_mode"])
        if kind is None:
            raise UserError(
                f"--from-command: --downsample_mode {values['downsample_mode']} is none of {', '.join(DOWNSAMPLERS)}"
            )
        activation = {"activation": values["use_activation_at_downsample"]} if kind == "downsample_conv" else {}
        return {"kind": kind, **activation}
    if not values["decode_splatter_to_128"]:
        return {"kind": "plain"}
    resampling = "average" if values["replace_interpolate_with_avgpool"] else "nearest"
    return {"kind": values["decoder_upblocks_interpolate_mode"], "resampling": resampling}


def _scale(values: Values) -> Values:
    limits = {"log_min": values["scale_clamp_min"], "log_max": values["scale_clamp_max"]}
    if values["scale_act"] == "softplus":
        return {"kind": "softplus", **limits}
    learned = {"bias": values["scale_act_bias"], "learn_bias": values["scale_bias_learnable"]}
    return {"kind": values["scale_act"], **learned, **limits}
