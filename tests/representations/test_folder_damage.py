"""A folder with a trained method knows the digests of its files, so that it is checked wherever it is."""

import json
import shutil
from pathlib import Path

import pytest
from support.finished import finish

from z1g.core.errors import UserError
from z1g.gaussians.channels import SplatOptions
from z1g.inference.method import ImageToSplats
from z1g.representations import folder as method_folder
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.path.resized import LastLayer
from z1g.sampling.options import InferOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    finish(root)
    return next((root / "results").glob("unet/*/pipeline"))


@pytest.fixture
def travelled(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_folder_is_read_anywhere_and_may_have_a_description(travelled: Path) -> None:
    (travelled / "README.md").write_text("A model.")
    (travelled / ".cache").mkdir()
    (travelled / ".cache/x.json").write_text("{}")
    ImageToSplats.from_folder(travelled, InferOptions(precision="fp32", cuda_graphs=False))


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "heads.safetensors", "vae/config.json", "model_index.json"]
)
def test_one_flipped_bit_is_noticed(name: str, travelled: Path) -> None:
    content = bytearray((travelled / name).read_bytes())
    content[len(content) // 2] ^= 2
    (travelled / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged, according to stage1\.json"):
        ImageToSplats.from_folder(travelled, InferOptions())


def test_missing_and_added_networks_are_noticed(travelled: Path) -> None:
    extra = travelled / "unet/diffusion_pytorch_model.fp16.safetensors"
    extra.write_bytes(b"x")
    with pytest.raises(UserError, match=r"fp16\.safetensors does not belong here"):
        method_folder.read(travelled)
    extra.unlink()
    (travelled / "heads.safetensors").unlink()
    with pytest.raises(UserError, match=r"heads\.safetensors does not exist"):
        method_folder.read(travelled)


def test_a_digit_in_its_own_record_is_noticed(travelled: Path) -> None:
    file = travelled / "stage1.json"
    radius = json.loads(file.read_text())["camera"]["radius"]
    file.write_text(file.read_text().replace(f'"radius": {radius}', f'"radius": {radius + 1}'))
    with pytest.raises(UserError, match=r"stage1\.json cannot be used: its content does not have its checksum"):
        method_folder.read(travelled)


def test_sizes_that_the_networks_do_not_have_are_refused_before_they_take_memory(travelled: Path) -> None:
    """Whoever wrote the digests, too: rays of views of 8192 pixels would take 20 GB."""
    representation, camera, splats = method_folder.read(travelled)
    sizes = representation.model_copy(update={"input_size": 8192})
    method_folder.write(travelled, sizes, camera, splats)
    with pytest.raises(UserError, match=r"stage1\.json cannot be used: its sizes are those of codes 4x12288x8192, and"):
        ImageToSplats.from_folder(travelled, InferOptions())
    average = DecoderOptions(path=LastLayer(resampling="average"))
    method_folder.write(
        travelled, representation.model_copy(update={"decoder": average}), camera, SplatOptions(size=4096)
    )
    with pytest.raises(UserError, match=r"stage1\.json cannot be used: its path 'last_layer' cannot average"):
        ImageToSplats.from_folder(travelled, InferOptions())


def test_in_a_results_tree_the_job_is_named(trained: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained.parents[2], results, symlinks=True)
    pipeline = next(results.glob("unet/*/pipeline"))
    content = bytearray((pipeline / "heads.safetensors").read_bytes())
    content[-1] ^= 2
    (pipeline / "heads.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"is not as job unet wrote it .*Delete {pipeline} and make it again"):
        method_folder.read(pipeline)
