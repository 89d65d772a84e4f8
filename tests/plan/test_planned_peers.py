"""`peers:` of a set: jobs of the DAG beside its ablations, without any influence on these."""

import logging
import os
from pathlib import Path

import pytest
from support.paths import ROOT

from z1g.config.peers import PeerOptions
from z1g.core.errors import UserError
from z1g.plan.peers import first_planned, read_planned
from z1g.plan.plan import Plan

SET = "description: a set\npeers:\n  lgm: {outputs: %s, frame: lgm}\n"


@pytest.fixture
def ablations(tmp_path: Path) -> Path:
    """A set of two ablations with a peer, and one ablation without."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "a.ply").write_bytes(b"1")
    folder = tmp_path / "ablations"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "_set.yaml").write_text(SET % (tmp_path / "outputs"))
    (folder / "mine" / "one.yaml").write_text("description: one\n")
    (folder / "mine" / "two.yaml").write_text("unet: {train: {steps: 7}}\n")
    (folder / "alone.yaml").write_text("description: alone\n")
    return folder


def planned(ablations: Path, *names: str, missing: str | None = None) -> Plan:
    results = ablations.parent / "results"
    return Plan.load("scratch", names, results, ablations, ROOT / "configs", missing=missing)  # type: ignore[arg-type]


def test_a_set_plans_its_peers_with_its_first_ablation(ablations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = planned(ablations, "mine")
    (peer,) = plan.peers.values()
    stages = plan.ablations["one"].stages
    assert (peer.name, peer.like, peer.metrics, peer.ingest) == (
        "lgm",
        "one",
        stages["metrics"].id,
        stages["ingest"].id,
    )
    assert planned(ablations, "alone").peers == {}
    plan.write()
    name, like, options = read_planned(plan.results, "lgm")
    assert (name, like) == ("lgm", "one")
    assert options == PeerOptions(outputs=str(ablations.parent / "outputs"), frame="lgm")
    assert first_planned(plan.results) == "one"
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        read_planned(plan.results, "other")


def test_peers_change_no_id_of_an_ablation(ablations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = planned(ablations, "mine")
    with_peers = plan.identity, {name: one.stages["metrics"].id for name, one in plan.ablations.items()}
    (ablations / "mine" / "_set.yaml").write_text("description: a set\n")
    plan = planned(ablations, "mine")
    assert with_peers == (plan.identity, {name: one.stages["metrics"].id for name, one in plan.ablations.items()})


def test_changed_outputs_and_options_are_measured_again(ablations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    before = planned(ablations, "mine").peers["lgm"].identity
    assert planned(ablations, "mine").peers["lgm"].identity == before
    file = ablations.parent / "outputs" / "a.ply"
    os.utime(file, ns=(1, 1))
    touched = planned(ablations, "mine").peers["lgm"].identity
    (ablations / "mine" / "_set.yaml").write_text(
        (SET % (ablations.parent / "outputs")).replace("}", ", registered: true}")
    )
    assert len({before, touched, planned(ablations, "mine").peers["lgm"].identity}) == 3


def test_two_systems_of_one_name_are_refused(ablations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (ablations / "other").mkdir()
    (ablations / "other" / "_set.yaml").write_text(SET % "elsewhere")
    (ablations / "other" / "three.yaml").write_text("description: three\n")
    with pytest.raises(UserError, match="lgm stands for different outputs in two sets"):
        _ = planned(ablations, "mine", "other").peers


def test_missing_outputs_stop_the_plan_or_warn(
    ablations: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    (ablations / "mine" / "_set.yaml").write_text(SET % "nowhere")
    with pytest.raises(UserError, match=r"peers\.lgm\.outputs: nowhere is not a folder"):
        planned(ablations, "mine", missing="stop")
    with caplog.at_level(logging.WARNING):
        planned(ablations, "mine", missing="warn")
    assert "peers.lgm.outputs: nowhere is not a folder" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("peers: {lgm: {outputs: a}}\n", "peers.lgm.frame"),
        ("peers: {lgm: {outputs: a, frame: lgn}}\n", "peers.lgm.frame"),
        ("peers: {'a b': {outputs: a, frame: lgm}}\n", "a b"),
    ],
)
def test_mistakes_are_named(ablations: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (ablations / "mine" / "_set.yaml").write_text(text)
    with pytest.raises(UserError) as raised:
        planned(ablations, "mine")
    assert "_set.yaml:1" in str(raised.value)
    assert said in str(raised.value)


def test_only_a_set_has_peers(ablations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (ablations / "alone.yaml").write_text(SET % "outputs")
    with pytest.raises(UserError, match=r"alone\.yaml:2"):
        planned(ablations, "alone")
