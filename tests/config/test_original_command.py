"""`z1g config --from-command`: the original's commands as ablations."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import original_commands as commands
from support.paths import CONFIGS, ROOT

from z1g.cli.main import main
from z1g.config.catalog import Catalog
from z1g.config.entries import Entries
from z1g.config.original_command import SCRIPTS, parse, translated
from z1g.config.original_flags import FLAGS, Flag
from z1g.config.resolve import resolve
from z1g.config.tree import Experiment
from z1g.config.walk import places
from z1g.config.yaml_file import YamlFile, read_yaml
from z1g.core.errors import UserError

TRAIN = {"log_every": 20, "validate_every": 400, "checkpoint_every": 400, "workers": 1}
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "original_autodecoder": (
        commands.AUTODECODER,
        {
            "base": "original",
            "autodecoder": {
                "codes": {"kind": "encoder"},
                "mix_diffusion": {"interval": 10},
                # 20,001 epochs of 80 objects, four at a time.
                "train": {"steps": 400020, "batch_size": 4, **TRAIN},
            },
            "resources": {"autodecoder": {"gpus": 4}},
        },
    ),
    # Four processes train apart, each on a quarter of the objects a pass; one of them is kept.
    "original_unet": (commands.UNET, {"base": "original", "unet": {"train": {"steps": 200020, **TRAIN}}}),
    "original_inference": (commands.INFERENCE, {"base": "original"}),
}
SHARED: dict[str, Any] = {
    "representation.input_size": 320, "splat.size": 128, "representation.decoder.path.kind": "last_layer",
    "representation.decoder.path.resampling": "nearest", "representation.scale.kind": "biased_softplus",
    "representation.scale.bias": -3.0, "representation.scale.learn_bias": True, "representation.scale.log_max": -2.0,
    "representation.scale.log_min": -10.0, "representation.decoder.mode": "all", "camera.fov_y_deg": 49.1,
    "camera.radius": 1.5, "unet.condition_size": 320, "model.pretrained": "sudo-ai/zero123plus-v1.1",
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "original_autodecoder": {
        "autodecoder.train.optimizer.lr": 1e-4, "autodecoder.train.optimizer.clip_norm": 1.0,
        "autodecoder.train.schedule.kind": "plateau", "autodecoder.train.schedule.patience": 100,
        "autodecoder.train.schedule.factor": 0.7, "autodecoder.train.schedule.min_lr": 1e-6, "autodecoder.views": 20,
        "autodecoder.losses.rgb.weight": 1.0, "autodecoder.losses.alpha.weight": 1.0,
        "autodecoder.losses.perceptual.weight": 1.0, "autodecoder.losses.perceptual.kind": "lpips",
        "autodecoder.losses.splat.weight": 1.0, "autodecoder.losses.splat.every": 1,
        "autodecoder.mix_diffusion.unit": "passes", "autodecoder.train.precision": "auto",
        "autodecoder.codes.kind": "encoder", "autodecoder.render_inputs": False,
    },
    "original_unet": {
        "unet.train.optimizer.lr": 2e-6, "unet.train.schedule.min_lr": 1e-10, "unet.train.schedule.patience": 100,
        "unet.train.schedule.factor": 0.7, "unet.train.batch_size": 1, "unet.train.precision": "fp32",
        "unet.condition_dropout": 0.0, "unet.rendered": None, "unet.finetune.kind": "full", "resources.unet.gpus": 1,
        "autodecoder.codes.kind": "optimized", "autodecoder.codes.reset_optimizer": True,
    },
    "original_inference": {
        "infer.codes.kind": "diffusion", "infer.steps": 75, "infer.guidance": 4.0, "infer.sampler.kind": "ddpm",
        "infer.sampler.clip_sample": "checkpoint",
    },
}  # fmt: skip


def at(config: Experiment, path: str) -> Any:
    value: Any = config.model_dump(mode="json")
    for part in path.split("."):
        value = value[part]
    return value


def experiment(text: str) -> Experiment:
    """The configuration that a printed ablation is."""
    values = {key: value for key, value in yaml.safe_load(text).items() if key not in ("base", "description")}
    return resolve([read_yaml(CONFIGS / "original.yaml"), YamlFile(Path("printed"), values)])


@pytest.mark.parametrize("name", EXPECTED)
def test_the_originals_commands(name: str) -> None:
    command, expected = EXPECTED[name]
    printed = translated(command, 80, CONFIGS)
    values = yaml.safe_load(printed)
    assert len(values.pop("description")) > 20
    assert values == expected
    stored = yaml.safe_load((ROOT / "ablations" / "original" / f"{name}.yaml").read_text())
    stored.pop("description")
    assert stored == expected
    config = experiment(printed)
    for path, value in {**SHARED, **SETTINGS[name]}.items():
        assert at(config, path) == value, path


@pytest.mark.parametrize("scale", ["tiny", "full", "original"])
def test_the_stored_overlays_mean_the_same_at_every_scale(scale: str) -> None:
    catalog = Catalog(Entries.of_folder(ROOT / "ablations"), scale, CONFIGS)
    for name, (command, _) in EXPECTED.items():
        assert catalog.ablation(name).experiment == experiment(translated(command, 80, CONFIGS))


def test_every_given_flag_is_used_or_explained() -> None:
    for command, _ in EXPECTED.values():
        text = translated(command, 80, CONFIGS)
        said = {line.split()[1].strip("-:") for line in text.splitlines() if line.startswith("# --")}
        parsed = parse(command)
        silent = {name for name in parsed.given if name not in said}
        assert all(FLAGS[name].keys and parsed.stage in FLAGS[name].acts for name in silent)
        assert {"desc", "skip_predict_x0", "data_path_rendering"} <= said
        assert not said - set(FLAGS) - {"main_process_port", "config_file"}
    assert "lambda_alpha" in translated(commands.AUTODECODER, 80, CONFIGS)


# Each flag by itself

PLAIN = ["--decode_splatter_to_128", "--scale_act", "biased_softplus", "--num_views", "26", "--num_input_views", "6",
         "--input_size", "320"]  # fmt: skip
"""So that sizes fit and biases matter."""
OTHER: dict[str, list[str]] = {
    "input_size": ["640"], "splat_size": ["64"], "fovy": ["40"], "num_views": ["20"], "cam_radius": ["2"],
    "bg": ["0.25"],
    "data_path_rendering": ["renders"], "data_path_splatter_gt": ["splats"], "num_workers": ["3"], "batch_size": ["2"],
    "gradient_accumulation_steps": ["4"], "num_epochs": ["7"], "gradient_clip": ["0.5"], "mixed_precision": ["no"],
    "lr": ["1e-3"], "lr_scheduler": ["CosAnn"], "lr_scheduler_patience": ["9"], "lr_scheduler_factor": ["0.9"],
    "min_lr_scheduled": ["1e-7"], "eval_iter": ["3"], "save_iter": ["3"], "lambda_rendering": ["2"],
    "lambda_alpha": ["3", "--lambda_rendering", "0"], "lambda_lpips": ["0.5"], "lambda_splatter": ["0.5"],
    "splatter_guidance_interval": ["7"], "splatter_guidance_warmup": ["9"],
    "attr_use_logrithm_loss": ["scale", "opacity"], "decoder_mode": ["v1_fix_rgb_only"],
    "decode_splatter_to_128": ["False", "--splat_size", "320"],
    "decoder_upblocks_interpolate_mode": ["interpolate_upsample"], "downsample_mode": [
        "AvgPool", "--downsample_after_decode_latents"], "use_activation_at_downsample": [
        "--downsample_after_decode_latents"], "scale_act": ["biased_exp"], "scale_act_bias": ["-4"],
    "scale_clamp_max": ["-1"], "scale_clamp_min": ["-9"], "code_cache_dir": ["file", "--codes_from_cache"],
    "optimizer": ["lr", "0.5"], "code_init_from_0123_encoder": ["False"], "mix_diffusion_interval": ["10"],
    "one_step_diffusion": ["300"], "lipschitz_coefficient": ["0.3"], "model_path": ["sudo-ai/zero123plus-v1.2"],
    "model_type": ["Zero123PlusGaussianCodeUnetLora"], "lora_rank": ["16", "--model_type", "Lora"],
}  # fmt: skip
"""Values that are not the default's, and other flags without which they have no effect."""
ACTING = [
    (flag, stage)
    for flag in FLAGS.values()
    for stage in flag.acts
    # Inference takes stored codes without any flag, too.
    if flag.keys and (flag.name, stage) != ("codes_from_cache", "infer")
]


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {
        name: leaf for key, item in value.items() for name, leaf in leaves(item, f"{path}.{key}".strip(".")).items()
    }


@cache
def settings(stage: str, *words: str) -> dict[str, Any]:
    """All options that a program with these flags means."""
    script = next(name for name, of in SCRIPTS.items() if of == stage)
    text = translated(" ".join([script, "big", *PLAIN, *words]), 80, CONFIGS)
    return leaves(experiment(text).model_dump(mode="json"))


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "stage"), ACTING, ids=[f"{flag.name}-{stage}" for flag, stage in ACTING])
def test_a_flag_changes_its_keys_and_no_others(flag: Flag, stage: str) -> None:
    value, *companions = OTHER.get(flag.name, [""])
    extra = [] if flag.kind in ("words", "dict") else companions
    given = [f"--{flag.name}", *OTHER.get(flag.name, [])]
    if flag.name == "use_activation_at_downsample":
        given, extra = [f"--{flag.name}", value], [value]
    before, after = settings(stage, *extra), settings(stage, *given)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed, "no effect"
    keys = flag.keys.split(", ")
    if flag.name in ("batch_size", "gradient_accumulation_steps"):
        # An epoch has fewer steps.
        keys += [f"{stage}.train.{key}" for key in ("steps", "log_every", "validate_every", "checkpoint_every")]
    if flag.name.startswith("data_path"):
        keys.append("data")
    assert all(any(path == key or path.startswith(f"{key}.") for key in keys) for path in changed), changed


def test_keys_are_options() -> None:
    """Key paths exist with some kinds of the slots in them; losses are known by their names in the defaults."""
    known = {re.sub(r": {kind: \w+}", "", path) for path, _, _ in places()}
    options = {
        ".".join(filter(None, [re.sub(r": {kind: \w+}", "", path), name]))
        for path, cls, _ in places()
        for name in cls.model_fields
    }
    for flag in FLAGS.values():
        for key in filter(None, flag.keys.split(", ")):
            generic = re.sub(r"losses\.\w+", "losses.<name>", key)
            assert generic in options | known, (flag.name, key)


# Mistakes


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("{} big --num_view 3", 'no flag --num_view; did you mean "num_views"?'),
        ("{} big --nonsense", "no flag --nonsense; valid: "),
        ("{} big --lr", "--lr takes one value, got 0"),
        ("{} big --lr 1 2", "--lr takes one value, got 2: 1 2"),
        ("{} big --lr fast", "--lr is a number, got `fast`"),
        ("{} big --lr nan", "--lr is a number, got `nan`"),
        ("{} big --num_views 2.5", "--num_views is a whole number, got `2.5`"),
        ("{} big --codes_from_encoder maybe", "--codes_from_encoder is a switch, got `maybe`"),
        ("{} big words", "`words` belongs to no flag"),
        ("{} huge", "after the program comes a preset, got `huge`"),
        ("{}", "after the program comes a preset, got ``"),
        ("main.py big", "`main.py` is not one of the original's: main_zero123plus_v4_batch_code.py"),
        ("accelerate launch", "it names no program of the original's: main_zero123plus_v4_batch_code.py"),
        ("accelerate launch --confg_file x {} big", 'argument --confg_file is unknown; did you mean "config_file"?'),
        ("accelerate launch --num_processes many {} big", "--num_processes is a number, got `many`"),
        ("{} big --desc 'open", "not a command: No closing quotation"),
        ("{} big --lr_scheduler Step", "--lr_scheduler Step is none of Plat, CosAnn, OneCycle"),
        ("{} big --decoder_mode v2_x", "--decoder_mode v2_x is neither"),
        ("{} big --downsample_after_decode_latents --downsample_mode X", "--downsample_mode X is none of"),
        ("{} big --scale_act cubic", "--from-command:1: representation.scale.kind: unknown kind"),
        ("{} big --num_views 3", "--from-command:1: autodecoder.views: expected a number greater than or equal to 1"),
    ],
)
def test_mistakes_are_named(command: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        translated(command.format("main_zero123plus_v4_batch_code.py"), 80, CONFIGS)
    assert words in str(caught.value)


def test_other_ways_to_write_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENDERS", "/data/renders")
    parsed = parse(
        "CUDA_VISIBLE_DEVICES=0,1 accelerate launch --num-processes=2 --multi_gpu "
        "a/b/main_zero123plus_v4_batch_code.py big --lr=1e-3 --no-use-adamW --decode-splatter-to-128 True "
        "--optimizer.lr 0.1 --optimizer type Adam "
        "--attr_use_logrithm_loss scale opacity --data_path_rendering $RENDERS --lr 2e-3 # words"
    )
    assert parsed.gpus == 2
    assert parsed.given == {
        "lr": 2e-3, "use_adamW": False, "decode_splatter_to_128": True, "optimizer": {"lr": 0.1, "type": "Adam"},
        "attr_use_logrithm_loss": ("scale", "opacity"), "data_path_rendering": "/data/renders",
    }  # fmt: skip


def test_the_verb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["config", "--from-command", commands.AUTODECODER, "--objects", "40"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["autodecoder"]["train"]["steps"] == 20001 * 10
    for words in (["config"], ["config", "show", "--from-command", "x"], ["config", "--from-command", "x"],
                  ["config", "--from-command", commands.UNET, "--objects", "0"]):  # fmt: skip
        assert main(words) == 2
        assert "z1g config: error: " in capsys.readouterr().err
