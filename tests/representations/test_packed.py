"""Weights in int8: the error of each is bounded, and everything else survives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import save_file

from z1g.core.errors import UserError
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks import int8
from z1g.representations import Mosaic, folder, packed


@given(
    values=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)  # fmt: skip
def test_the_error_is_at_most_half_a_step_of_its_channel(values: np.ndarray) -> None:
    quantized, scale = int8.quantize(torch.from_numpy(values))
    assert quantized.dtype == torch.int8
    restored = int8.dequantize(quantized, scale).numpy().astype(np.float64)
    steps = np.abs(values.astype(np.float64)).max(axis=(1, 2)) / 127
    assert (np.abs(restored - values).max(axis=(1, 2)) <= 0.5003 * steps + 1e-37).all()


def trained(path: Path) -> dict[str, torch.Tensor]:
    """A folder with one network, and its tensors."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "conv.weight": torch.randn(16, 8, 3, 3, generator=generator) * torch.logspace(-3, 2, 16).view(16, 1, 1, 1),
        "conv.bias": torch.randn(16, generator=generator),
        "small": torch.randn(4, 4, generator=generator),
    }
    (path / "unet").mkdir(parents=True)
    save_file(tensors, path / "unet/model.safetensors")
    (path / "unet/config.json").write_text('{"a": 1}')
    (path / "README.md").write_text("for people")
    folder.write(path, Mosaic(), CameraOptions(), SplatOptions())
    return tensors


def test_a_folder_is_packed_and_unpacked(tmp_path: Path) -> None:
    tensors = trained(tmp_path / "model")
    packed.pack(tmp_path / "model", tmp_path / "packed")
    file = "unet/model.safetensors"
    assert int8.is_quantized(tmp_path / "packed" / file)
    assert not int8.is_quantized(tmp_path / "model" / file)
    assert folder.read(tmp_path / "packed") == folder.read(tmp_path / "model")
    restored = int8.load_restored(tmp_path / "packed" / file)
    assert restored.keys() == tensors.keys()
    assert all(tensor.dtype == torch.float32 for tensor in restored.values())
    for name in ("conv.bias", "small"):
        assert torch.equal(restored[name], tensors[name])
    # Each channel has its own scale, so that small channels keep their precision.
    error = (restored["conv.weight"] - tensors["conv.weight"]).flatten(1).norm(dim=1)
    assert (error / tensors["conv.weight"].flatten(1).norm(dim=1)).max() < 0.01
    assert json.loads((tmp_path / "packed/unet/config.json").read_text()) == {"a": 1}
    assert not (tmp_path / "packed/README.md").exists()


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    trained(tmp_path / "model")
    packed.pack(tmp_path / "model", tmp_path / "packed")
    file = tmp_path / "packed/unet/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        folder.read(tmp_path / "packed")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.ones(4, 4), f"a{int8.SCALE}": torch.ones(4)}, "a and its scales do not fit"),
        ({"a": torch.ones(4, 4, dtype=torch.int8), f"a{int8.SCALE}": torch.ones(3)}, "a and its scales do not fit"),
        ({f"a{int8.SCALE}": torch.ones(3)}, 'lacks "a"'),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    (tmp_path / "model").mkdir()
    save_file(tensors, tmp_path / "model/x.safetensors", int8.METADATA)
    with pytest.raises(UserError, match=message):
        int8.load_restored(tmp_path / "model/x.safetensors")
