"""The 113 options of the original's programs: what each one is in z1g, or why it is nothing.

`docs/original.md` has this table for readers; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["int", "float", "str", "bool", "words", "dict"]
Acts = Literal["autodecoder", "unet", "infer"]
STAGE_1: tuple[Acts, ...] = ("autodecoder",)
TRAINING: tuple[Acts, ...] = ("autodecoder", "unet")
INFERENCE: tuple[Acts, ...] = ("infer",)
EVERY: tuple[Acts, ...] = ("autodecoder", "unet", "infer")
LGM_READS = "the network's sizes are read from LGM's weights"
DEBUGGER = "stops in a debugger"
UPSTREAM = "stages of an ablation find what they need upstream; a killed job continues by itself"
ROW = "row `fitted` of the tables always shows what the truth reaches"


@dataclass(frozen=True)
class Flag:
    """One option of the original.

    default: as the original has it. keys: where it is in the configuration, comma-separated key paths. note: how the
    key differs from the flag or, without keys, why there is none. acts: stages in whose programs a key follows it.
    """

    name: str
    kind: Kind
    default: str
    keys: str
    note: str
    acts: tuple[Acts, ...] = EVERY


def _flags() -> tuple[Flag, ...]:
    return (*_network_and_data(), *_training(), *_decoder(), *_codes(), *_other())


def _network_and_data() -> tuple[Flag, ...]:
    return (
        Flag("input_size", "int", "256", "representation.input_size, unet.condition_size", "one flag for both"),
        Flag("down_channels", "words", "(64, 128, 256, 512, 1024, 1024)", "", LGM_READS),
        Flag("down_attention", "words", "(False, False, False, True, True, True)", "", LGM_READS),
        Flag("mid_attention", "bool", "True", "", LGM_READS),
        Flag("up_channels", "words", "(1024, 1024, 512, 256)", "", LGM_READS),
        Flag("up_attention", "words", "(True, True, True, False)", "", LGM_READS),
        Flag("splat_size", "int", "64", "splat.size", "preset `big`: 128"),
        Flag("output_size", "int", "256", "", "targets have the size of the renders: `data.renderer.resolution`"),
        Flag("data_mode", "str", "'s3'", "", "has one value"),
        Flag("fovy", "float", "49.1", "camera.fov_y_deg", ""),
        Flag("znear", "float", "0.5", "", "depth is not used; the rasterizer culls at 0.2, as in the original"),
        Flag("zfar", "float", "2.5", "", "depth is not used; the rasterizer has no far plane, as in the original"),
        Flag("num_views", "int", "12", "autodecoder.views", "without the inputs", STAGE_1),
        Flag("num_input_views", "int", "4", "", "always six; subtracted from `num_views`"),
        Flag("cam_radius", "float", "1.5", "camera.radius", ""),
        Flag("test_path", "str", "None", "", "photographs are arguments of `z1g infer`"),
        Flag("data_path", "str", "None", "", "the two folders below take its place"),
        Flag("data_path_rendering", "str", "None", "data.renders", "with `data: {kind: original}`"),
        Flag("data_path_splatter_gt", "str", "None", "data.splats", "with `data: {kind: original}`"),
        Flag("scene_start_index", "int", "0", "", "a list of objects says which: `z1g list`"),
        Flag("scene_end_index", "int", "-1", "", "a list of objects says which: `z1g list`"),
        Flag("overfit_one_scene", "bool", "False", "", "a list with one object: `z1g list`"),
        Flag("prob_grid_distortion", "float", "0.5", "", "inputs that do not fit their splats; exact augmentation is "
             "`autodecoder.augment`"),
        Flag("prob_cam_jitter", "float", "0.5", "", "0 in the original's commands; as above"),
        Flag("bg", "float", "0.5", "autodecoder.validation_background", "backgrounds of training are random, those of "
             "inputs gray", STAGE_1),
        Flag("check_splatter_alignment", "bool", "False", "", "a check of the data; `fit` compares splats and views"),
    )  # fmt: skip


def _training() -> tuple[Flag, ...]:
    schedule = "autodecoder.train.schedule, unet.train.schedule"
    rate = "autodecoder.train.optimizer.lr, unet.train.optimizer.lr"
    batch = "autodecoder.train.batch_size, unet.train.batch_size"
    return (
        Flag("num_workers", "int", "8", "autodecoder.train.workers, unet.train.workers", "processes that read data",
             TRAINING),
        Flag("workspace", "str", "'./workspace'", "", "every stage has a folder `results/<stage>/<id>`"),
        Flag("resume", "str", "None", "", UPSTREAM),
        Flag("resume_workspace", "str", "None", "", UPSTREAM),
        Flag("batch_size", "int", "8", batch, "times processes in stage 1; of one process in stage 2, where each one "
             "trains alone in the original", TRAINING),
        Flag("gradient_accumulation_steps", "int", "1", batch, "a factor; `train.micro_batch` saves memory", TRAINING),
        Flag("num_epochs", "int", "30", "autodecoder.train.steps, unet.train.steps", "times objects, over the batch",
             TRAINING),
        Flag("gradient_clip", "float", "1.0", "autodecoder.train.optimizer.clip_norm, unet.train.optimizer.clip_norm",
             "", TRAINING),
        Flag("mixed_precision", "str", "'bf16'", "autodecoder.train.precision", "stage 2 bypasses autocast: fp32",
             STAGE_1),
        Flag("lr", "float", "4e-4", rate, "", TRAINING),
        Flag("use_adamW", "bool", "True", "", "always AdamW"),
        Flag("lr_scheduler", "str", "'Plat'", schedule, "Plat: plateau, CosAnn: cosine_restarts, OneCycle: one_cycle",
             TRAINING),
        Flag("lr_scheduler_patience", "int", "2", schedule, "in epochs: `train.log_every` is an epoch", TRAINING),
        Flag("lr_scheduler_factor", "float", "0.5", schedule, "", TRAINING),
        Flag("min_lr_scheduled", "float", "1e-6", schedule, "", TRAINING),
        Flag("lr_schedule_by_train", "bool", "True", "", "plateaus are those of the training loss, of all processes"),
        Flag("eval_iter", "int", "100", "autodecoder.train.validate_every, unet.train.validate_every",
             "epochs, in steps", TRAINING),
        Flag("save_iter", "int", "200", "autodecoder.train.checkpoint_every, unet.train.checkpoint_every",
             "epochs, in steps", TRAINING),
        Flag("save_ckpt_copies", "bool", "False", "", "checkpoints replace each other, and the last one is complete"),
        Flag("save_train_pred", "int", "50", "", "images of validation are in TensorBoard"),
        Flag("early_stopping", "bool", "False", "", "fits always stop early: `fit.patience`"),
        Flag("early_stopping_patience", "int", "10", "fit.patience", "of the fit of splats, in evaluations", ()),
        Flag("skip_training", "bool", "False", "", "stages after training are jobs of their own: `infer`, `metrics`"),
        Flag("set_random_seed", "bool", "False", "", "always seeded, each draw by its step: `train.seed`, 42"),
        Flag("desc", "str", "None", "", "the name and the description of the ablation's file"),
        Flag("verbose", "bool", "False", "", "progress bars and `z1g status`"),
        Flag("verbose_main", "bool", "False", "", "progress bars and `z1g status`"),
        Flag("lambda_rendering", "float", "1.0", "autodecoder.losses.rgb.weight, autodecoder.losses.alpha.weight",
             "of color and alpha", STAGE_1),
        Flag("lambda_alpha", "float", "1.0", "autodecoder.losses.alpha.weight", "only where lambda_rendering is 0",
             STAGE_1),
        Flag("lambda_lpips", "float", "1.0", "autodecoder.losses.perceptual.weight", "", STAGE_1),
        Flag("lambda_splatter", "float", "1.0", "autodecoder.losses.splat.weight", "", STAGE_1),
        Flag("splatter_guidance_interval", "int", "10", "autodecoder.losses.splat.every", "", STAGE_1),
        Flag("splatter_guidance_warmup", "int", "500", "autodecoder.losses.splat.warmup_passes", "plus one", STAGE_1),
        Flag("attr_use_logrithm_loss", "words", "()", "autodecoder.losses.splat.log", "", STAGE_1),
        Flag("render_input_views", "bool", "False", "autodecoder.render_inputs", "", STAGE_1),
        Flag("log_gs_loss_mse_dict", "bool", "False", "", "errors of all attributes are always logged"),
        Flag("plot_attribute_histgram", "words", "()", "", "histograms of all attributes are always logged"),
        Flag("discard_small_opacities", "bool", "False", "", "`autodecoder.losses.splat.opacity_weighted` leaves "
             "invisible Gaussians out of the loss"),
    )  # fmt: skip


def _decoder() -> tuple[Flag, ...]:
    path, scale = "representation.decoder.path", "representation.scale"
    return (
        Flag("decoder_mode", "str", '"v0_unfreeze_all"', "representation.decoder.mode",
             "v0_unfreeze_all: all, v1_fix_rgb and its variants: fixed_rgb; v2 never worked"),
        Flag("decode_splatter_to_128", "bool", "False", path, "without it: plain"),
        Flag("decoder_upblocks_interpolate_mode", "str", '"last_layer"', path, "the same names"),
        Flag("replace_interpolate_with_avgpool", "bool", "False", f"{path}.resampling", "average"),
        Flag("downsample_after_decode_latents", "bool", "False", path, "with `downsample_mode`"),
        Flag("downsample_mode", "str", '"DownsampleModule"', path,
             "DownsampleModule: downsample_conv, AvgPool: average_pool, ConvAvgPool: conv_average_pool"),
        Flag("use_activation_at_downsample", "bool", "False", f"{path}.activation", "of downsample_conv"),
        Flag("latent_resolution", "int", "40", "", "is the input's size over the VAE's factor"),
        Flag("scale_act", "str", "'softplus'", scale, "the same names"),
        Flag("scale_act_bias", "float", "0", f"{scale}.bias", ""),
        Flag("scale_bias_learnable", "bool", "False", f"{scale}.learn_bias", ""),
        Flag("scale_clamp_max", "float", "-2", f"{scale}.log_max", ""),
        Flag("scale_clamp_min", "float", "-10", f"{scale}.log_min", ""),
        Flag("fix_pretrained", "bool", "False", "", "which weights learn is said by `decoder_mode`"),
        Flag("init_from_mean", "bool", "False", "", "codes start as `autodecoder.codes.start` says"),
        Flag("perturb_rot_scaling", "bool", "False", "", "an experiment on single scenes"),
    )  # fmt: skip


def _codes() -> tuple[Flag, ...]:
    codes = "autodecoder.codes"
    return (
        Flag(
            "codes_from_encoder",
            "bool",
            "False",
            f"{codes}, infer.codes",
            "kind: encoder; without any: optimized",
            ("autodecoder", "infer"),
        ),
        Flag(
            "codes_from_diffusion",
            "bool",
            "False",
            f"{codes}, infer.codes",
            "kind: diffusion",
            ("autodecoder", "infer"),
        ),
        Flag("codes_from_cache", "bool", "False", f"{codes}, infer.codes", "kind: cache", ("autodecoder", "infer")),
        Flag("code_cache_dir", "str", "None", f"{codes}.path", "a file that stage `codes` wrote", STAGE_1),
        Flag(
            "optimizer",
            "dict",
            "field(default_factory=lambda: optimizer_config)",
            f"{codes}.lr",
            "Adam without weight decay; the original forgets its moments: `reset_optimizer`",
            STAGE_1,
        ),
        Flag("code_init_from_0123_encoder", "bool", "True", f"{codes}.start", "True: encoder, False: uniform", STAGE_1),
        Flag("use_tanh_code_activation", "bool", "False", "", "its authors advise against it"),
        Flag(
            "mix_diffusion_interval",
            "int",
            "10",
            "autodecoder.mix_diffusion.interval",
            "if it is given; without, nothing is mixed",
            STAGE_1,
        ),
        Flag("skip_predict_x0", "bool", "False", "", "only renames the run"),
        Flag("one_step_diffusion", "int", "None", "infer.codes", "kind: one_step, timestep", INFERENCE),
        Flag("lipschitz_coefficient", "float", "None", "infer.codes", "kind: probe, coefficient", INFERENCE),
        Flag("lipschitz_mode", "str", "None", "", "codes are disturbed by normal noise only"),
        Flag("scheduler_type", "str", "None", "", "the sampler is DDPM whatever it says; others: `infer.sampler`"),
    )


def _other() -> tuple[Flag, ...]:
    return (
        Flag("model_type", "str", "'Zero123PlusGaussian'", "unet.finetune, unet.rendered",
             "names with Lora: kind lora; with Render: rendering losses; else the program says what is trained",
             ("unet",)),
        Flag("model_path", "str", "'sudo-ai/zero123plus-v1.1'", "model.pretrained", ""),
        Flag("custom_pipeline", "str", "'./zero123plus/pipeline_v2.py'", "", "z1g has its own, of the same results"),
        Flag("lora_rank", "int", "8", "unet.finetune.rank", "", ("unet",)),
        Flag("train_unet", "bool", "False", "", DEBUGGER),
        Flag("random_init_unet", "bool", "False", "", "networks with random weights: `model: {kind: scratch}`"),
        Flag("resume_unet", "str", "None", "", UPSTREAM),
        Flag("normalize_scale_using_gt", "words", "()", "", DEBUGGER),
        Flag("gt_replace_pred", "words", "()", "", DEBUGGER),
        Flag("render_gt_splatter", "bool", "False", "", ROW),
        Flag("eval_fused_gt", "bool", "False", "", ROW),
        Flag("eval_splatter_gt", "bool", "False", "", ROW),
        Flag("force_cuda_rast", "bool", "False", "", "meshes are rasterized by `z1g mesh`, with or without a GPU"),
        Flag("fancy_video", "bool", "False", "", "turntables of every object: `infer.turntable_frames`"),
        Flag("splatter_optimizer", "dict", "field(default_factory=lambda: splatter_optimizer_config)",
             "fit.rates, fit.betas, fit.weight_decay", "of the fit of splats", ()),
        Flag("use_splatter_with_depth_offset", "bool", "False", "fit.positions", "kind: depth_offset", ()),
        Flag("zero_init_xy_offset", "bool", "False", "", "offsets start at what the start of the fit says"),
        Flag("always_zero_xy_offset", "bool", "False", "fit.positions.lateral", "false", ()),
        Flag("save_raw_tensor_splatter", "bool", "False", "", "fits are always stored as tensors"),
        Flag("vae_on_splatter_image", "bool", "False", "", "an experiment before the published method"),
    )  # fmt: skip


FLAGS = {flag.name: flag for flag in _flags()}


def row(flag: Flag) -> str:
    """A line of the table in docs/original.md."""
    keys = ", ".join(f"`{key}`" for key in flag.keys.split(", ")) if flag.keys else "–"
    return f"| `--{flag.name}` | `{flag.default}` | {keys} | {flag.note} |"
