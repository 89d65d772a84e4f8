"""Models as folders that need no results tree."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from support.finished import finish
from support.photographs import disc, saved

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.gaussians import files as splat_files
from z1g.inference import models
from z1g.inference.method import ImageToSplats
from z1g.networks.weights import packaged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    finish(root)
    return root / "results/ablations/micro"


@pytest.fixture(scope="module")
def folders(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model with weights of both kinds, and nothing else of the results tree."""
    root = tmp_path_factory.mktemp("models")
    (root / "card.md").write_text("A micro model.")
    written = {}
    for weights in ("int8", "float32"):
        words = ["--weights", weights, "--card", str(root / "card.md"), "--out", str(root / weights)]
        assert main(["pack", str(run), *words]) == 0
        written[weights] = root / weights
    return written


def infer(out: Path, *words: str) -> int:
    return main(["infer", *words, "--out", str(out), "--size", "32"])


def test_float32_gives_the_run_s_splats_bit_for_bit(run: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    photograph = str(saved(tmp_path, disc(), "a.png"))
    assert infer(tmp_path / "run", photograph, "--run", str(run)) == 0
    assert infer(tmp_path / "model", photograph, "--model", str(folders["float32"])) == 0
    assert (tmp_path / "run/a.ply").read_bytes() == (tmp_path / "model/a.ply").read_bytes()
    records = [json.loads((tmp_path / name / "a.json").read_text()) for name in ("run", "model")]
    assert records[0]["stages"] == records[1]["stages"]
    assert records[1]["model"] == str(folders["float32"])


@pytest.mark.parametrize(("amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_only_photographs_are_sampled_in_bfloat16_on_a_cpu_with_amx(
    run: Path, monkeypatch: pytest.MonkeyPatch, amx: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("z1g.inference.method.has_bf16_matrices", lambda: amx)
    model = models.of_run(run)
    assert ImageToSplats.of(model).denoiser.unet.dtype == dtype
    assert ImageToSplats.from_folder(model.pipeline, model.infer).denoiser.unet.dtype == torch.float32


def test_int8_is_smaller_and_gives_nearly_the_same_splats(folders: dict[str, Path], tmp_path: Path) -> None:
    photograph = str(saved(tmp_path, disc(), "a.png"))
    for name, folder in folders.items():
        assert infer(tmp_path / name, photograph, "--model", str(folder)) == 0
    exact, rounded = (splat_files.read(tmp_path / name / "a.ply") for name in ("float32", "int8"))
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).norm() < 0.05 * exact.norm()
    sizes = {
        name: sum(file.stat().st_size for file in folder.rglob("*.safetensors")) for name, folder in folders.items()
    }
    assert sizes["int8"] < 0.75 * sizes["float32"]  # most tensors of a micro model are too small
    assert (folders["int8"] / "README.md").read_text() == "A micro model."


def test_a_model_of_the_package_is_found_by_its_name(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folders["int8"], tmp_path / "shipped/base")
    monkeypatch.setattr(packaged, "MODELS", tmp_path / "shipped")
    assert packaged.shipped() == ["base"]
    ImageToSplats.from_pretrained("base")
    photograph = str(saved(tmp_path, disc(), "a.png"))
    assert infer(tmp_path / "out", photograph) == 0
    assert json.loads((tmp_path / "out/a.json").read_text())["model"] == "base"
    assert infer(tmp_path / "out", photograph, "--model", "bsae") == 2
    assert "bsae is neither a folder with model.json nor a model of the package (base)" in capsys.readouterr().err


def test_without_a_model_the_message_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaged, "MODELS", tmp_path / "none")
    assert infer(tmp_path / "out", str(saved(tmp_path, disc(), "a.png"))) == 2
    assert "give --run results/ablations/<name>, or --model FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.json", "pipeline/stage1.json", "pipeline/heads.safetensors"])
def test_damage_is_noticed(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(folders["int8"], tmp_path / "model")
    content = (tmp_path / "model" / name).read_bytes()
    position = len(content) // 2
    (tmp_path / "model" / name).write_bytes(
        content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    )
    with pytest.raises(UserError, match=name.rpartition("/")[2]):
        ImageToSplats.from_pretrained(str(tmp_path / "model"))


def test_networks_of_another_model_are_noticed(folders: dict[str, Path], tmp_path: Path) -> None:
    """Else they would be sampled with options that are not theirs."""
    shutil.copytree(folders["int8"], tmp_path / "model")
    shutil.rmtree(tmp_path / "model/pipeline")
    shutil.copytree(folders["float32"] / "pipeline", tmp_path / "model/pipeline")
    with pytest.raises(UserError, match=r"pipeline/stage1\.json does not have the digest that is recorded here"):
        ImageToSplats.from_pretrained(str(tmp_path / "model"))


def test_what_to_do_about_a_damaged_model_is_not_what_to_do_about_a_run(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Who fetched a model has no run from which it could be made again."""
    shutil.copytree(folders["int8"], tmp_path / "model")
    (tmp_path / "model/pipeline/heads.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="Copy or fetch the model again") as error:
        ImageToSplats.from_pretrained(str(tmp_path / "model"))
    assert "snakemake" not in str(error.value)


def test_the_card_names_files_of_its_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And not those of the results tree, which who fetches the model does not have."""
    assert "`stages/unet/pipeline`" in (run / "MODEL_CARD.md").read_text()
    assert main(["pack", str(run), "--out", str(tmp_path / "model")]) == 0
    text = (tmp_path / "model/README.md").read_text()
    section = text.partition("## Files")[2].partition("##")[0]
    named = re.findall(r"`([^`]+)`", section)
    assert named
    assert all((tmp_path / "model" / name).exists() for name in named)
    assert "config.json" not in text
    assert main(["pack", str(run), "--card", str(run / "MODEL_CARD.md"), "--out", str(tmp_path / "own")]) == 0
    assert (tmp_path / "own/README.md").read_text() == (run / "MODEL_CARD.md").read_text(), "a card of the user's stays"
    (tmp_path / "card.md").write_text("---\nlicense: MIT License\n---\n# Chairs")
    assert main(["pack", str(run), "--card", str(tmp_path / "card.md"), "--out", str(tmp_path / "other")]) == 2
    assert "'MIT License' is no license that model cards name; did you mean mit" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_folder_that_exists_is_not_written_over(run: Path, folders: dict[str, Path]) -> None:
    model = models.of_run(run)
    with pytest.raises(UserError, match="exists already"):
        models.write_model(model, folders["int8"], int8=True, about={}, card="")
