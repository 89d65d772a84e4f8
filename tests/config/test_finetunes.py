"""Scales that finetune: a trained model settles its own sizes, and what contradicts it, or its absence, is one line."""

from pathlib import Path

import pytest
from support import trained_models
from support.builders import experiment
from support.paths import ROOT

from z1g.config.catalog import Catalog
from z1g.config.entries import Entries
from z1g.config.preflight import preflight
from z1g.config.resolve import Ablation, resolve
from z1g.config.yaml_file import YamlFile
from z1g.core.errors import UserError
from z1g.networks.weights import packaged

CONFIGS, ABLATIONS = ROOT / "configs", ROOT / "ablations"
SCALES = ("tiny", "finetune")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one of the name that the scales have; its sizes are those of no default."""
    folder = tmp_path_factory.mktemp("models")
    trained_models.write(experiment(folder), folder / "base")
    return folder


@pytest.fixture
def shipped(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "MODELS", models)


def selected(scale: str, *names: str) -> tuple[list[Ablation], list[str]]:
    return Catalog(Entries.of_folder(ABLATIONS), scale, CONFIGS).select(names)


@pytest.mark.slow
@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("scale", SCALES)
def test_the_model_settles_its_sizes(scale: str) -> None:
    runs, problems = selected(scale, "demo")
    assert not problems
    arms = {run.about.arm for run in runs}
    assert len(arms) >= 3
    assert sorted(run.about.seed for run in runs) == sorted([0, 1] * len(arms))
    for run in runs:
        config = run.experiment
        assert (config.splat.size, config.representation.input_size, config.unet.condition_size) == (8, 16, 16)
        assert config.representation.code_shape(config.model, config.splat.size) == (4, 24, 16)
        assert config.camera.train_views not in (4, 35), "views are those of the scale"
    changed = [{key for run in runs if run.about.arm == arm for key in run.differences} for arm in sorted(arms)]
    assert {"autodecoder", "unet"} <= set().union(*changed), "both stages vary"
    preflight(runs)


@pytest.mark.slow
@pytest.mark.usefixtures("shipped")
def test_ablations_that_contradict_the_model_are_named_with_their_line() -> None:
    runs, problems = selected("tiny", "encoder_mix", "encoder_mix_exp_scale")
    assert [run.name for run in runs] == ["encoder_mix"]
    (line,) = problems
    assert "encoder_mix_exp_scale.yaml:6: representation.scale." in line
    assert "in the model base, which training starts from" in line


@pytest.mark.slow
@pytest.mark.usefixtures("shipped")
def test_a_model_may_replace_the_weights_of_any_scale() -> None:
    overlay = YamlFile(Path("a.yaml"), {"model": {"kind": "trained"}, "splat": {"size": 9}}, {("splat", "size"): 2})
    with pytest.raises(UserError, match=r"^a\.yaml:2: splat\.size 9 is 8 in the model base"):
        resolve([overlay])
    assert resolve([YamlFile(Path("a.yaml"), {"model": {"kind": "trained"}})]).splat.size == 8


@pytest.mark.parametrize("scale", SCALES)
def test_a_missing_model_stops_the_plan_with_one_line(
    scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "MODELS", tmp_path)
    runs, problems = selected(scale, "demo")
    assert not problems
    with pytest.raises(UserError) as caught:
        preflight(runs)
    about = [line for line in str(caught.value).splitlines() if "model.pretrained" in line]
    assert len(about) == 1
    assert about[0].startswith(str(CONFIGS / f"{scale}.yaml:"))
    assert "base is neither a folder with model.json nor a model of the package (none)" in about[0]
    preflight(runs, "warn")
