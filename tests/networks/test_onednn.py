"""Linear layers by oneDNN against float64, and what they change in the base model's splats."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from z1g.inference.method import ImageToSplats
from z1g.networks import onednn

LINES = "processor : 0\nvendor_id : {vendor}\n"
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Largest error, relative to the sum of magnitudes of a product's terms."""
SPLATS = 1e-5
"""Largest change of a splat's attribute after four guided steps; on an AMD EPYC it is 2e-6."""

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_slow_for_mkl", lambda: True)


def replaced(network: nn.Module) -> list[nn.Module]:
    return [part for part in network.modules() if "forward" in vars(part)]


@pytest.mark.parametrize("shape", [(48,), (1, 48), (768, 48), (2, 35, 48), (2, 3, 5, 48)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("slow")
def test_products_are_as_exact_as_float32_allows(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, bias=bias)
    onednn.use_onednn(layer)
    assert replaced(layer) == [layer]
    x = torch.randn(shape)
    weight, wide = layer.weight.detach().double().numpy(), x.double().numpy()
    offset = layer.bias.detach().double().numpy() if bias else np.zeros(80)
    with torch.no_grad():
        actual = layer(x).double().numpy()
    assert actual.shape == (*shape[:-1], 80)
    bound = ROUNDING * (np.abs(wide) @ np.abs(weight).T + np.abs(offset))
    assert (np.abs(actual - (wide @ weight.T + offset)) <= bound).all()


@pytest.mark.usefixtures("slow")
def test_parts_of_a_tensor() -> None:
    """Attention passes transposed and sliced tensors."""
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8), torch.randn(3, 32, 10)
    whole = layer(x[:, ::2].transpose(1, 2).contiguous()).detach()
    onednn.use_onednn(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(x[:, ::2].transpose(1, 2)), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("slow")
def test_gradients_are_torch_s() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8), torch.randn(4, 16, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    onednn.use_onednn(layer)
    (actual,) = torch.autograd.grad(layer(x).square().sum(), x)
    assert torch.equal(actual, expected)


@pytest.mark.usefixtures("slow")
def test_layers_of_other_types_and_classes_stay() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.bfloat16), Scaled(4, 4), nn.Conv1d(4, 4, 1))
    onednn.use_onednn(network)
    assert replaced(network) == [network[0]]


@pytest.mark.parametrize(("vendor", "slow"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_intel_s_cpus_keep_mkl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, slow: bool) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(LINES.format(vendor=vendor))
    monkeypatch.setattr(onednn, "CPU", cpu)
    layer = nn.Linear(4, 4)
    onednn.use_onednn(layer)
    assert bool(replaced(layer)) is slow


def test_an_unknown_cpu_keeps_mkl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "CPU", tmp_path / "absent")
    assert not onednn.is_slow_for_mkl()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="networks are on the GPU")
def test_splats_of_the_base_model_change_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("z1g.inference.method.has_bf16_matrices", lambda: False)
    splats = []
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for slow in (False, True):
        monkeypatch.setattr(onednn, "is_slow_for_mkl", lambda slow=slow: slow)
        method = ImageToSplats.from_pretrained("base").sampling(4, 2.0)
        assert bool(replaced(method.denoiser.unet)) is slow
        splats.append(method(image, [1])[1])
    change = (splats[1] - splats[0]).abs().amax()
    assert 0 < change < SPLATS
