"""Before the first job: every kind that needs a file, a folder or a package says so when it is not there."""

import ast
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.forked_snakemake import snakemake
from support.paths import CONFIGS, ROOT

from z1g.cli.main import main
from z1g.codes.cache import CachedCodes
from z1g.config.catalog import load_ablation
from z1g.config.lookup import unwrap
from z1g.config.preflight import ELSEWHERE, findings, preflight
from z1g.config.sections import UNetOptions
from z1g.config.tree import Experiment
from z1g.config.walk import places
from z1g.core import needs
from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.core.slots import FileContent, Section, Slot, kinds
from z1g.fitting.lgm import LgmStart
from z1g.losses.lpips import LpipsLoss
from z1g.meshes import executable
from z1g.meshes.lighting.hdri import Hdri
from z1g.meshes.renderers import Blender
from z1g.metrics.clip import ClipSimilarity
from z1g.metrics.lpips import Lpips
from z1g.networks.weights.sd_image_variations import SdImageVariations
from z1g.networks.weights.trained import Trained
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.plan.plan import Plan
from z1g.render.auto import Auto
from z1g.render.diff_gaussian import DiffGaussian
from z1g.render.gsplat import Gsplat
from z1g.sampling.options import InferOptions
from z1g.sources.evaluation_set import EvaluationSet
from z1g.sources.g_objaverse import GObjaverse
from z1g.sources.meshes import Meshes
from z1g.sources.original import Original

NEEDY: dict[type[Section], list[tuple[dict[str, Any], str]]] = {
    CachedCodes: [({}, r"^path: no file is given"), ({"path": "gone.pt"}, r"^path: gone\.pt is not a file")],
    Zero123Plus: [({"pretrained": "./gone"}, r"^pretrained: gone is not a folder"),
                  ({"pretrained": str(ROOT / "configs")}, r"^pretrained: .* lacks model_index\.json, vae, unet")],
    SdImageVariations: [({"pretrained": "./gone"}, r"^pretrained: gone is not a folder"),
                        ({"pretrained": str(ROOT / "configs")}, r"^pretrained: .* lacks vae, unet, image_encoder")],
    Trained: [({"pretrained": "gone"}, r"^pretrained: gone is neither a folder with model\.json nor a model of the")],
    LgmStart: [({"weights": "gone.safetensors"}, r"^weights: gone\.safetensors is not a file .*download LGM's")],
    LpipsLoss: [({}, r"^trunk: no file is given; .*vgg16"), ({"trunk": "a.pth"}, r"^trunk: a\.pth is not a file")],
    Lpips: [({}, r"^trunk: no file is given; .*left empty"), ({"trunk": "a.pth"}, r"^trunk: a\.pth is not a file")],
    ClipSimilarity: [
        ({}, r"^weights: no folder is given; .*left empty"),
        ({"weights": "gone"}, r"gone is not a folder"),
    ],
    Gsplat: [({}, r"^the package gsplat is not installed; pip install 'z1g\[gpu\]'$")],
    DiffGaussian: [({}, r"^the package diff_gaussian_rasterization is not installed; .*docs/install\.md")],
    Auto: [({}, r"^the package gsplat is not installed; jobs with a GPU need it")],
    Hdri: [({"file": "gone.exr"}, r"^file: gone\.exr is not a file"),
           ({"file": str(ROOT / "README.md")}, r"^file: .*README\.md is not one of \.hdr, \.exr")],
    Meshes: [({"paths": ("gone", "gone.zip!/a.obj")}, r"^paths: gone, gone\.zip!/a\.obj: no such file or folder")],
    Original: [({"renders": "gone"}, r"^renders: gone is not a folder"),
               ({"renders": str(ROOT), "splats": "gone"}, r"^splats: gone is not a folder")],
    GObjaverse: [({"root": "gone"}, r"^root: gone is not a folder"),
                 ({"root": str(ROOT), "index": "gone.json"}, r"^index: gone\.json is not a file")],
    EvaluationSet: [({"root": "gone"}, r"^root: gone is not a folder"),
                    ({"root": str(ROOT), "objects": "gone.csv"}, r"^objects: gone\.csv is not a file"),
                    ({"root": str(ROOT), "roots": ("gone",)}, r"^roots: gone: no such folder")],
    Blender: [({}, r"^python: no Blender found"), ({"python": "gone"}, r"^python: gone is not an executable")],
    UNetOptions: [({"attention": "xformers"}, r"^attention: the package xformers is not installed; .*or choose auto")],
    InferOptions: [({"attention": "flash4"}, r"^attention: the package flash_attn\.cute is not .*'z1g\[flash4\]', or")],
}  # fmt: skip
"""Options that are not met on a machine without anything, and what is said of them."""
WORDS = {"targets", "partition", "account", "qos"}
"""Free texts that name neither file nor folder."""
OPTIONAL = {
    "gsplat",
    "diff_gaussian_rasterization",
    "xformers",
    "flash_attn.cute",
    "nvdiffrast",
    "bpy",
    "skimage",
    "xatlas",
    "rembg",
}
CLASSES = {section for _, section, _ in places()}


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine with a GPU, and the folder that one stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("Z1G_BLENDER", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in OPTIONAL else find(name))
    (tmp_path / "driver").touch()
    for module in ("z1g.core.needs", "z1g.render.auto"):
        monkeypatch.setattr(f"{module}.GPU", tmp_path / "driver")
    return tmp_path


def families() -> set[type[Slot]]:
    """Every slot family of the tree, found by the base class of the kinds that stand in it."""
    bases = {base for cls in CLASSES if issubclass(cls, Slot) for base in cls.__mro__ if Slot in base.__bases__}
    return {base for base in bases if base.__module__.endswith(".base")}


def free_texts(section: type[Section]) -> set[str]:
    """Fields that can name a file or folder: texts without a list of choices."""
    names = set()
    for name, field in section.model_fields.items():
        annotation, _ = unwrap(field.annotation)
        if (
            annotation is str
            or annotation == tuple[str, ...]
            or any(isinstance(m, FileContent) for m in field.metadata)
        ):
            names.add(name)
    return names - WORDS - {"kind"}


def optional_imports(section: type[Section]) -> set[str]:
    tree = ast.parse(Path(sys.modules[section.__module__].__file__ or "").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names} & OPTIONAL


def test_all_families_are_looked_at() -> None:
    assert len(families()) >= 17
    assert {kind for family in families() for kind in kinds(family).values()} == {
        cls for cls in CLASSES if issubclass(cls, Slot)
    }


@pytest.mark.parametrize("section", sorted(CLASSES, key=lambda cls: f"{cls.__module__}.{cls.__name__}"))
def test_every_kind_and_section_needs_nothing_or_says_what_it_misses(bare: Path, section: type[Section]) -> None:
    if section in NEEDY:
        for options, words in NEEDY[section]:
            with pytest.raises(Missing, match=words) as caught:
                section(**options).check()
            assert "Traceback" not in str(caught.value)
        return
    assert free_texts(section) == set(), "does it name a file or a folder? then check it, and add it to NEEDY"
    assert optional_imports(section) == set(), "a package that may be missing: check it, and add it to NEEDY"
    section().check()


def test_what_is_there_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.safetensors", "vgg.pth", "sky.HDR", "index.json"):
        (tmp_path / name).touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.chdir(tmp_path)
    for section in (
        CachedCodes(path="a.safetensors"), LgmStart(weights="a.safetensors"), LpipsLoss(trunk="vgg.pth"),
        LpipsLoss(weight=0), Lpips(trunk="vgg.pth"), ClipSimilarity(weights="."), Hdri(file="sky.HDR"),
        Meshes(paths=(".", "*.obj", "a.safetensors", "vgg.pth!/a.obj")), Original(renders=".", splats="."),
        GObjaverse(root=".", index="index.json"), EvaluationSet(root=".", objects="index.json"),
        Gsplat(), DiffGaussian(), Auto(), Blender(),
        UNetOptions(attention="xformers"), InferOptions(attention="flash4"),
    ):  # fmt: skip
        section.check()


def test_auto_asks_for_gsplat_only_where_there_is_a_gpu(bare: Path) -> None:
    with pytest.raises(Missing) as caught:
        Auto().check()
    assert not caught.value.fatal
    (bare / "driver").unlink()
    Auto().check()


def test_metrics_without_weights_are_left_empty_and_do_not_stop(bare: Path) -> None:
    for metric in (Lpips(), ClipSimilarity()):
        with pytest.raises(Missing) as caught:
            metric.check()
        assert not caught.value.fatal


def test_a_blender_that_is_named_must_be_there_and_another_may_come(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, fatal in ((Blender(), False), (Blender(python="gone"), True)):
        with pytest.raises(Missing) as caught:
            options.check()
        assert caught.value.fatal == fatal
    assert executable.CONFIG_KEY not in str(caught.value), "the key path is said once"


# The walk


MANY = """\
data:
  paths: [nowhere]
  renderer:
    kind: blender
    lighting: {kind: hdri, file: sky.exr}
fit:
  start:
    kind: lgm
    weights: lgm.safetensors
autodecoder:
  codes: {kind: cache}
  losses:
    perceptual: {kind: lpips}
    switched_off: {kind: lpips, weight: 0}
unet:
  rendered:
    losses:
      mine:
        kind: lpips
        trunk: vgg.pth
  attention: xformers
metrics:
  metrics:
    mine: {kind: clip}
render: {kind: diff_gaussian}
"""
EXPECTED = [
    "idea.yaml:2: data.paths: nowhere: no such file or folder",
    "idea.yaml:5: data.renderer.lighting.file: sky.exr is not a file",
    "idea.yaml:25: render: the package diff_gaussian_rasterization is not installed",
    "idea.yaml:9: fit.start.weights: lgm.safetensors is not a file",
    "idea.yaml:11: autodecoder.codes.path: no file is given",
    "idea.yaml:13: autodecoder.losses.perceptual.trunk: no file is given",
    "idea.yaml:21: unet.attention: the package xformers is not installed",
    "idea.yaml:20: unet.rendered.losses.mine.trunk: vgg.pth is not a file",
]
WARNED = [
    "idea.yaml:3: data.renderer.python: no Blender found",
    "idea.yaml:24: metrics.metrics.mine.weights: no folder",
]


def idea(folder: Path, text: str, scale: str = "scratch") -> Path:
    (folder / "idea.yaml").write_text(text, encoding="utf-8")
    return folder / "idea.yaml"


def test_all_findings_are_said_at_once_with_file_line_and_key_path(
    bare: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ablation = load_ablation(idea(bare, MANY), "scratch", CONFIGS)
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as caught:
        preflight([ablation])
    *lines, last = str(caught.value).replace(f"{bare}/", "").splitlines()
    assert len(lines) == len(EXPECTED)
    for line, expected in zip(lines, EXPECTED, strict=True):
        assert line.startswith(expected), line
    assert last == ELSEWHERE
    for record, expected in zip(caplog.records, WARNED, strict=True):
        assert expected in record.getMessage()


def test_everything_is_a_warning_where_that_is_asked_for(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    ablation = load_ablation(idea(bare, MANY), "scratch", CONFIGS)
    with caplog.at_level(logging.WARNING):
        preflight([ablation, ablation], "warn")
    assert len(caplog.records) == len(EXPECTED) + len(WARNED), "each once"
    said = [record.getMessage() for record in caplog.records]
    for expected in [*EXPECTED, *WARNED]:
        assert any(expected in line for line in said), expected


def test_what_a_scale_asks_for_is_said_once_for_all_ablations(bare: Path) -> None:
    base = bare / "mine.yaml"
    base.write_text("fit:\n  start: {kind: lgm}\n")
    names = ["a", "b"]
    for name in names:
        (bare / f"{name}.yaml").write_text("unet: {condition_dropout: 0.2}\n")
    ablations = [load_ablation(bare / f"{name}.yaml", str(base), CONFIGS) for name in names]
    with pytest.raises(UserError) as caught:
        preflight([ablations[0], ablations[1]])
    said = [line for line in str(caught.value).splitlines() if "fit.start" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{base}:2: fit.start.weights: pretrained/lgm/")


def test_reading_a_configuration_needs_nothing_of_the_machine(bare: Path) -> None:
    ablation = load_ablation(idea(bare, MANY), "scratch", CONFIGS)
    assert len(list(findings(ablation))) == len(EXPECTED) + len(WARNED)
    assert isinstance(ablation.experiment, Experiment)


def test_the_plan_looks_only_where_it_is_asked_to(bare: Path) -> None:
    (bare / "objects").mkdir()
    (bare / "objects/a.obj").write_text("v 0 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    (bare / "objects/b.obj").write_text("v 0 0 0\nv 0 2 0\nv 0 0 2\nf 1 2 3\n")
    (bare / "ablations").mkdir()
    idea(bare / "ablations", "data: {paths: [objects]}\nfit: {start: {kind: lgm}}\n")
    where = Path("results"), Path("ablations"), CONFIGS
    assert list(Plan.load("scratch", None, *where).ablations) == ["idea"]
    assert list(Plan.load("scratch", None, *where, missing="warn").ablations) == ["idea"]
    with pytest.raises(UserError, match=r"^ablations/idea\.yaml:2: fit\.start\.weights: "):
        Plan.load("scratch", None, *where, missing="stop")
    (bare / "configs").symlink_to(CONFIGS)
    with pytest.raises(UserError, match=r"^ablations/idea\.yaml:2: fit\.start\.weights: "):
        Plan.from_options({"scale": "scratch"}, Path("results"))
    for given, check in (({"missing": "warn"}, True), ({}, False)):
        assert list(Plan.from_options({"scale": "scratch", **given}, Path("results"), check).ablations) == ["idea"]
    with pytest.raises(UserError, match=r'--config missing=: wran; did you mean "warn"'):
        Plan.from_options({"scale": "scratch", "missing": "wran"}, Path("results"))


def test_z1g_plan_stops_or_warns(
    bare: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(ROOT / "configs", bare / "configs")
    shutil.copytree(ROOT / "workflow", bare / "workflow")
    (bare / "ablations").mkdir()
    idea(bare / "ablations", "base: scratch\nfit:\n  start: {kind: lgm}\n")
    assert main(["plan", "--scale", "scratch"]) == 2
    said = capsys.readouterr()
    assert "idea.yaml:3: fit.start.weights: pretrained/lgm/model_fp16_fixrot.safetensors is not a file" in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert main(["plan", "--scale", "scratch", "--missing", "warn"]) == 0
    assert re.search(r"^idea +[0-9a-f]{10}", capsys.readouterr().out, re.MULTILINE)
    assert "fit.start.weights: pretrained/lgm" in caplog.records[-1].getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_snakemake_stops_before_anything_runs(tmp_path: Path, profile: str) -> None:
    for name in ("workflow", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "ablations").mkdir()
    idea(tmp_path / "ablations", "autodecoder:\n  losses:\n    perceptual: {kind: lpips, trunk: gone.pth}\n")
    (tmp_path / "Snakefile").write_text((ROOT / "Snakefile").read_text())
    words = ["-n", "--profile", f"workflow/profiles/{profile}", "--config", "scale=scratch"]
    done = snakemake(words, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "ablations/idea.yaml:3: autodecoder.losses.perceptual.trunk: gone.pth is not a file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
    done = snakemake([*words, "missing=warn"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "autodecoder.losses.perceptual.trunk" in done.stderr


def test_needs_are_told_without_importing_anything() -> None:
    code = (
        "import json, sys; from z1g.config.tree import Experiment; from z1g.config.walk import places\n"
        "for _, cls, _ in places():\n    try: cls().check()\n    except Exception: pass\n"
        "heavy = ('torch', 'diffusers', 'transformers', 'numba', 'gsplat', 'xformers')\n"
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_relative_paths_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=rf"^a: b\.txt is not a file \(looked from {re.escape(str(Path.cwd()))}\); c$"):
        needs.require_file("a", "b.txt", "c")
    with pytest.raises(Missing, match=rf"^a: {re.escape(str(tmp_path))}/b is not a folder; c$"):
        needs.require_folder("a", str(tmp_path / "b"), "c")


def test_free_texts_are_found() -> None:
    assert free_texts(CachedCodes) == {"path"}
    assert free_texts(Meshes) == {"paths", "roots"}
    assert free_texts(Lpips) == {"trunk"}
    assert optional_imports(Gsplat) == {"gsplat"}
