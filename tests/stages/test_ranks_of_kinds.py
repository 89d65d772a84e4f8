"""Two processes that share a batch train the weights of one: kinds beside the mosaic's diffusion, an adversary."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.builders import TRAIN, fill, plan, stage_path, without_seconds
from support.ddp_cases import fork_ranks, stages_on_cpu
from support.running import run_stages

from z1g.core.files import read_jsonl
from z1g.plan.plan import Plan
from z1g.stages import autodecoder, codes, unet
from z1g.training.checkpoint import CheckpointFolder

pytestmark = pytest.mark.slow
FEW_STEPS = {"sampler": {"kind": "ddim"}, "steps": 2, "guidance": 1}
RENDERED = {"views": 1, "losses": {name: {"kind": name} for name in ("rgb", "splat")}}
KINDS: dict[str, dict[str, Any]] = {
    "joint": {"representation": {"kind": "joint"}},
    "adversarial": {"autodecoder": {"adversarial": {"resolution": 64, "channels": 4, "start": 0.1, "lr": 1e-6}}},
    "regression": {"unet": {"objective": "regression", "rendered": RENDERED}},
    "distilled": {"unet": {"distill": {"steps": 2, "teacher_steps": 4, "train": TRAIN}}, "infer": FEW_STEPS},
}
CASES = [
    ("joint", "autodecoder"), ("adversarial", "autodecoder"), ("joint", "unet"), ("regression", "unet"),
    ("distilled", "unet"),
]  # fmt: skip
Trees = dict[str, Plan]


def made(root: Path, kind: str) -> Plan:
    planned = plan(root / kind, **KINDS[kind])
    fill(planned)
    return planned


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    trees = {kind: made(tmp_path_factory.mktemp("alone"), kind) for kind in KINDS}
    for planned in trees.values():
        run_stages(planned, autodecoder, codes, unet)
    return trees


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Folders of stages that two ranks trained. Stage 2 has the codes that one rank made."""
    folders = {}
    for kind, stage in CASES:
        planned = made(tmp_path_factory.mktemp("together"), kind)
        if stage == "unet":
            run_stages(planned, autodecoder, codes)
        folders[kind, stage] = stage_path(planned, stage)
    fork_ranks(2, stages_on_cpu, *map(str, folders.values()))
    return folders


@pytest.mark.parametrize(("kind", "stage"), CASES)
def test_two_ranks_train_the_weights_of_one(
    kind: str, stage: str, alone: Trees, together: dict[tuple[str, str], Path]
) -> None:
    one, two = stage_path(alone[kind], stage), together[kind, stage]
    output = "model" if stage == "autodecoder" else "pipeline"
    files = sorted((one / output).rglob("*.safetensors"))
    assert files
    for file in files:
        ours, theirs = load_file(file), load_file(two / file.relative_to(one))
        # Adam amplifies rounding of gradients near zero.
        torch.testing.assert_close(theirs, ours, atol=2e-4 if stage == "autodecoder" else 2e-5, rtol=0)
    rows = [without_seconds(read_jsonl(folder / "history.jsonl")) for folder in (one, two)]
    assert len(rows[0]) == len(rows[1]) > 0
    for ours, theirs in zip(*rows, strict=True):
        # Outputs of a discriminator that knows nothing yet are near zero.
        assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-4 if kind == "adversarial" else 1e-12)


def test_two_ranks_train_the_discriminator_of_one(alone: Trees, together: dict[tuple[str, str], Path]) -> None:
    states = []
    for folder in (stage_path(alone["adversarial"], "autodecoder"), together["adversarial", "autodecoder"]):
        loaded = CheckpointFolder(folder / "checkpoints").load()
        assert loaded is not None
        states.append(loaded[1]["objective"]["adversary._extra_state"])
    ours, theirs = states
    assert theirs["steps"] == ours["steps"] == 6
    assert theirs["norms"].tolist() == pytest.approx(ours["norms"].tolist(), rel=1e-2)
    # Steps are of 1e-6, as those of Adam are mostly noise at first; its first moments are the gradients.
    for index, state in ours["optimizer"]["state"].items():
        moment = state["exp_avg"]
        other = theirs["optimizer"]["state"][index]["exp_avg"]
        assert moment.norm() > 0
        # At first, the gradient of the last bias is zero but for rounding.
        assert (other - moment).norm() < 0.02 * moment.norm() + 1e-6, index
