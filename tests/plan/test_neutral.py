"""New options change no id at their default; changed defaults do; nothing is forgotten that identities stood for."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model
from support.paths import ROOT

from z1g.config.lookup import unwrap
from z1g.config.resolve import Ablation, merge
from z1g.config.tree import Experiment
from z1g.config.walk import places, sections
from z1g.core.files import read_json, write_json
from z1g.core.slots import Runtime, Section, Slot, kinds
from z1g.data.manifest import Manifest, ObjectEntry
from z1g.networks.weights import packaged
from z1g.plan import identity, neutral
from z1g.plan.folder import StageFolder
from z1g.plan.identity import planned_stages
from z1g.plan.neutral import FILE, Defaults, recorded
from z1g.plan.plan import Plan
from z1g.plan.slices import cut, restored, slice_config
from z1g.plan.stages import STAGES

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
MANIFEST = Manifest((ObjectEntry("crate", "crate.obj", "c0ffee"),), 64)
PLACES = {path: (section, runtime) for path, section, runtime in places()}
SEGMENT = re.compile(r"(?:^|\.)(\w+)(\.<name>)?(?:: \{kind: (\w+)\})?")
OUTSIDE = {"data": ("chunk_size", "paths", "rotations")}
"""In no slice: how objects are found and grouped, and how splats are read where none are given."""
Change = Callable[[Section], Section]


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the package would count by their content, which options that are made here do not know."""
    monkeypatch.setattr(packaged, "MODELS", tmp_path / "no models")


def ids(experiment: Experiment) -> dict[str, str]:
    stages = planned_stages(Ablation("a", "", "full", {}, experiment), MANIFEST)
    return {name: stage.id for name, stage in stages.items()}


def segments(path: str) -> list[tuple[str, bool, str | None]]:
    """Field, whether it is an entry of a mapping, and kind of each step to a place."""
    return [(name, bool(entry), kind or None) for name, entry, kind in SEGMENT.findall(path)]


def at(section: Section, steps: list[tuple[str, bool, str | None]], change: Change) -> Section:
    """The section with what stands at the place replaced by `change` of it; kinds on the way are chosen."""
    if not steps:
        return change(section)
    (name, entry, kind), *further = steps
    field = type(section).model_fields[name]
    value = getattr(section, name)
    annotation, _ = unwrap(field.annotation)
    if entry:
        family, _ = unwrap(annotation.__args__[1])
        chosen = kinds(family)[str(kind)].model_construct()
        return section.model_copy(update={name: {**value, "mine": at(chosen, further, change)}})
    if kind is not None and value.kind != kind:
        value = kinds(annotation)[kind].model_construct()
    if value is None:
        value = annotation.model_construct()
    return section.model_copy(update={name: at(value, further, change)})


def rebuilt(section: Section, name: str = "brand_new", annotation: Any = int, default: Any = 7, **values: Any) -> Any:
    """The section as one of a class that has one more field, or another default of a field."""
    grown = create_model(type(section).__name__, __base__=type(section), **{name: (annotation, default)})
    own = {key: value for key, value in section.__dict__.items() if key != name}
    return grown.model_construct(**own, **values)


def another(value: Any) -> Any:
    """A value of the same type that differs."""
    if isinstance(value, (bool, type(None))):
        return not value
    if isinstance(value, (int, float)):
        return value + 1 if isinstance(value, int) else 0.7 * value + 0.017
    return value + "x" if isinstance(value, str) else (*value, *value, "x")


def test_every_place_of_the_tree_is_reached() -> None:
    assert len(PLACES) > 150
    for path, (section, _) in PLACES.items():
        reached: list[type[Section]] = []
        at(Experiment(), segments(path), lambda section_at, seen=reached: seen.append(type(section_at)) or section_at)
        assert reached == [section], path


@pytest.mark.parametrize("path", sorted(PLACES))
def test_a_new_field_counts_only_where_it_is_not_at_its_default(path: str) -> None:
    steps, runtime = segments(path), PLACES[path][1]
    before = ids(at(Experiment(), steps, lambda section: section))
    assert ids(at(Experiment(), steps, rebuilt)) == before
    used = ids(at(Experiment(), steps, lambda section: rebuilt(section, brand_new=8)))
    # A stage reads a section of the root only where its slice names it.
    assert (used == before) == (runtime or path == "")


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(path for path, (section, off) in PLACES.items() if not off and path))
def test_a_changed_default_counts(path: str) -> None:
    steps, section = segments(path), PLACES[path][0]
    names = [
        name
        for name in neutral.identifying(section)
        if not isinstance(section.model_fields[name].default, (Section, dict))
        and name not in OUTSIDE.get(path.split(":")[0], ())
    ]
    before = ids(at(Experiment(), steps, lambda placed: placed))
    for name in names:
        default = another(section.model_fields[name].default)
        changed = at(Experiment(), steps, lambda placed, name=name, value=default: rebuilt(placed, name, Any, value))
        assert ids(changed) != before, name
        # Whoever had chosen the value before still has it.
        kept = at(Experiment(), steps, lambda f, n=name, v=default: rebuilt(f, n, Any, v, **{n: getattr(f, n)}))
        assert ids(kept) == before, name


class Finer(Section):
    """A new nested section."""

    depth: int = 3
    label: str = "fine"


class Choice(Slot):
    """A new slot family."""

    kind: str


class Plain(Choice):
    kind: Literal["plain"] = "plain"
    width: int = 4


class Fancy(Choice):
    kind: Literal["fancy"] = "fancy"


@pytest.mark.parametrize(
    ("annotation", "default", "others"),
    [
        (Finer, Finer(), [Finer(depth=4), Finer(label="")]),
        (Finer | None, None, [Finer(), Finer(depth=4)]),
        (Choice, Plain(), [Plain(width=5), Fancy()]),
        (dict[str, Choice], {"a": Plain()}, [{}, {"b": Plain()}, {"a": Fancy()}, {"a": Plain(), "b": Fancy()}]),
        (tuple[int, ...], (1, 2), [(1,), (2, 1)]),
    ],
)
@pytest.mark.parametrize(
    "path", ["fit", "data: {kind: meshes}.renderer: {kind: blender}", "autodecoder.losses.<name>: {kind: rgb}"]
)
def test_new_sections_slots_and_mappings_are_neutral(path: str, annotation: Any, default: Any, others: Any) -> None:
    steps = segments(path)
    before = ids(at(Experiment(), steps, lambda section: section))
    assert ids(at(Experiment(), steps, lambda stage_ids: rebuilt(stage_ids, "new", annotation, default))) == before
    seen = [before]
    for other in others:
        stage_ids = ids(
            at(Experiment(), steps, lambda f, other=other: rebuilt(f, "new", annotation, default, new=other))
        )
        assert stage_ids not in seen
        seen.append(stage_ids)


def test_a_new_entry_of_a_mapping_is_a_changed_default() -> None:
    options = Experiment().metrics
    more = options.model_copy(update={"metrics": {**options.metrics, "psnr2": options.metrics["psnr"]}})
    before, after = ids(Experiment()), ids(Experiment().model_copy(update={"metrics": more}))
    assert [name for name in STAGES if before[name] != after[name]] == ["metrics"]


def test_new_options_of_a_kind_that_is_not_chosen_change_nothing() -> None:
    assert ids(Experiment()) == ids(Experiment())
    chosen = at(Experiment(), segments("autodecoder.codes: {kind: optimized}"), lambda section: section)
    assert ids(chosen)["autodecoder"] != ids(Experiment())["autodecoder"]


def planned(checkout: Path) -> str:
    """What `z1g plan` of a checkout says."""
    alone = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-m", "z1g", "plan", "--scale", "scratch"]
    return subprocess.run(words, cwd=checkout, env=alone, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_in_the_source_a_new_option_is_neutral_and_a_changed_default_is_not(tmp_path: Path) -> None:
    """With nothing else edited: the option that would have rendered 80,000 objects again."""
    shutil.copytree(ROOT / "z1g", tmp_path / "z1g", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("ablations", "configs", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    file = tmp_path / "z1g/meshes/renderers/base.py"
    source, before = file.read_text(), planned(tmp_path)
    line = next(line for line in source.splitlines() if line.strip().startswith("resolution: int = Field(512"))
    file.write_text(source.replace(line, f"{line}\n    backdrop: bool = False"))
    assert planned(tmp_path) == before
    file.write_text(source.replace(line, line.replace("512", "256")))
    assert planned(tmp_path) == before, "scale scratch says how many pixels it wants"
    line = next(line for line in source.splitlines() if line.strip().startswith("normals: bool = Field(False"))
    file.write_text(source.replace(line, line.replace("False", "True")))
    changed = planned(tmp_path)
    pattern = re.compile(r"\b[0-9a-f]{10}\b")
    assert len(pattern.findall(before)) == len(pattern.findall(changed)) >= 5 * len(STAGES)
    assert not set(pattern.findall(changed)) & set(pattern.findall(before))


# The file


def test_the_file_is_in_step_with_the_tree() -> None:
    assert FILE.read_text() == neutral.document(), "run `z1g config write`"


def test_every_identifying_field_is_recorded_and_no_other() -> None:
    table = recorded().first
    for path, section, runtime in places():
        names = set() if runtime else set(neutral.identifying(section))
        assert names <= table.get(path or neutral.ROOT_PLACE, {}).keys(), path


def test_the_file_travels_with_the_package() -> None:
    assert FILE.is_relative_to(Path(neutral.__file__).parent)
    assert '"plan/*.json"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()


def first(**fields: Any) -> type[Section]:
    return create_model("Root", __base__=Section, **{name: (Any, value) for name, value in fields.items()})


def after(*releases: type[Section]) -> Defaults:
    """What the file holds after these releases."""
    defaults = Defaults({}, {})
    for release in releases:
        defaults = defaults.updated(release)
    return defaults


def identity_of(defaults: Defaults, section: Section, **removed: Any) -> dict[str, Any]:
    plain = {**section.model_dump(mode="json"), **defaults.gone(type(section), ""), **removed}
    return defaults.distinct(section, plain)


def test_a_first_default_is_never_rewritten_and_no_field_is_taken_out() -> None:
    old, newer = first(steps=1000), first(steps=2000, views=4)
    defaults = after(old, newer)
    assert defaults.first["experiment"] == {"steps": 1000, "views": 4}
    assert defaults.latest == {"experiment": {"steps": 2000}}
    assert identity_of(defaults, old()) == {}
    assert identity_of(defaults, newer()) == {"steps": 2000}
    assert identity_of(defaults, newer(steps=1000)) == {}
    assert after(old, newer, old).latest == {}
    assert after(old, newer, newer).text() == defaults.text()
    assert after(old, newer, first(views=4)).first == defaults.first


def test_a_field_that_is_taken_out_still_tells_of_its_last_default() -> None:
    """Else results made before its default changed would pass for those made now."""
    old, newer, newest = first(steps=1000), first(steps=2000), first()
    defaults = after(old, newer, newest)
    assert identity_of(defaults, newest()) == {"steps": 2000} == identity_of(after(old, newer), newer())
    assert identity_of(after(old, newest), newest()) == {} == identity_of(after(old), old())


def test_a_renamed_field_keeps_the_ids_of_its_default() -> None:
    old, newer, renamed = first(steps=1000), first(steps=2000), first(n_steps=2000)
    defaults = after(old, newer, renamed)
    assert identity_of(defaults, renamed()) == identity_of(after(old, newer), newer())
    assert identity_of(defaults, renamed(n_steps=1000)) not in ({}, identity_of(defaults, renamed()))


def test_a_field_that_comes_back_means_what_it_meant() -> None:
    old, none, again = first(steps=1000), first(), first(steps=3000)
    defaults = after(old, none, again)
    assert identity_of(defaults, again()) == {"steps": 3000}
    assert identity_of(defaults, again(steps=1000)) == {}


def test_a_field_that_becomes_runtime_still_tells_of_its_last_default() -> None:
    old, newer = first(workers=1), first(workers=2)
    off = create_model("Root", __base__=Section, workers=(Annotated[int, Runtime()], Field(5)))
    assert identity_of(after(old, newer, off), off()) == {"workers": 2}
    assert identity_of(after(old, off), off()) == {}


def test_a_section_that_is_taken_out_still_tells_of_its_changed_defaults() -> None:
    changed = create_model("Finer", __base__=Finer, depth=(int, 9))
    old, newer = (create_model("Root", __base__=Section, finer=(cls, cls())) for cls in (Finer, changed))
    defaults = after(old, newer, first())
    assert defaults.gone(first(), "") == {"finer": {"depth": 9}}
    assert identity_of(defaults, first()()) == identity_of(after(old, newer), newer()) == {"finer": {"depth": 9}}


def test_gone_fields_reach_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(Experiment())
    defaults = recorded()
    table = {path: dict(fields) for path, fields in defaults.first.items()}
    table["unet"]["removed"], table["experiment"]["removed"] = 1, 1
    for path, changed in (("unet", ["unet", "infer", "metrics"]), ("experiment", list(STAGES))):
        monkeypatch.setattr(neutral, "recorded", lambda path=path: Defaults(table, {path: {"removed": 2}}))
        stage_ids = ids(Experiment())
        assert [name for name in STAGES if stage_ids[name] != before[name]] == changed
    monkeypatch.setattr(neutral, "recorded", lambda: Defaults(table, {}))
    assert ids(Experiment()) == before


FIRST: dict[str, Any] = {
    "data": {"kind": "meshes", "renderer": {"kind": "blender"}},
    "model": {"kind": "zero123plus", "condition": "plain"},
    "fit": {
        "steps": 100, "views_per_step": 8, "draws": "uniform", "betas": [0.8, 0.95],
        "schedule": {"kind": "cosine", "final_share": 0.2},
        "rates": {
            "position": 5e-4, "position_unit": "normalized", "opacity": 0.05, "scale": 0.08, "rotation": 1e-3,
            "rgb": 0.02,
        },
    },
}  # fmt: skip
"""The first values of all defaults that have changed since."""
LATER: dict[str, Any] = {
    "data": {"kind": "meshes", "renderer": {"kind": "raster"}},
    "model": {"kind": "zero123plus", "condition": "processors"},
    "fit": {
        "steps": 96, "views_per_step": 4, "draws": "passes", "betas": [0.6, 0.9], "schedule": {"kind": "cosine"},
        "rates": {
            "position": 0.09, "position_unit": "pixel", "opacity": 0.15, "scale": 0.16, "rotation": 2e-3, "rgb": 0.06,
        },
    },
}  # fmt: skip
"""The same defaults now, as identities have them."""


def test_ids_do_not_depend_on_other_ways_to_write_the_same() -> None:
    assert identity.identifying_values(Experiment()) == LATER
    assert identity.identifying_values(Experiment.model_validate(FIRST)) == {}
    spelled = Experiment.model_validate(json.loads(Experiment().model_dump_json()))
    assert ids(spelled) == ids(Experiment())


# Folders that an earlier version planned


def without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: without(value, path[1:]) if name == path[0] and path[1:] else value
        for name, value in values.items()
        if (name,) != path
    }


def test_a_folder_from_before_an_option_existed_has_its_first_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan([Ablation("a", "", "full", {}, Experiment.model_validate({"model": {"kind": "scratch"}}))], tmp_path)
    plan.write()
    folder = plan.folder(*plan.ablations["a"].stages["autodecoder"].key)
    record = read_json(folder / "stage.json")
    missing = (("autodecoder", "code_noise"), ("autodecoder", "train", "ema"), ("model", "autoencoder_size"),
               ("autodecoder", "losses", "rgb", "weight"), ("autodecoder", "augment"))  # fmt: skip
    older = {key: value for key, value in record.items() if key != "checksum"}
    for path in missing:
        older["config"] = without(older["config"], path)
    write_json(folder / "stage.json", older)
    assert older != record
    written = StageFolder.open(folder).config
    write_json(folder / "stage.json", record)
    assert written == StageFolder.open(folder).config
    with pytest.raises(AttributeError):
        _ = written.autodecoder.test_steps  # what the slice leaves out is still not there

    # Where the default has changed since, the folder's id stands for the first one.
    table = {path: dict(fields) for path, fields in recorded().first.items()}
    table["autodecoder"]["code_noise"] = 0.25
    table["autodecoder.losses.<name>: {kind: rgb}"]["weight"] = 3.0
    monkeypatch.setattr("z1g.plan.slices.recorded", lambda: Defaults(table, {}))
    write_json(folder / "stage.json", older)
    config = StageFolder.open(folder).config
    assert config.autodecoder.code_noise == 0.25
    assert config.autodecoder.losses["rgb"].weight == 3.0
    assert config.autodecoder.losses["alpha"].weight == 1.0


def test_a_completed_configuration_is_whole() -> None:
    whole = Experiment().model_dump(mode="json")
    identifying = {path: section for path, section, off in places() if not off}
    assert identifying
    assert Experiment.model_validate(recorded().completed({})) == Experiment.model_validate(merge(whole, FIRST))
    assert recorded().completed(whole) == whole


def test_a_slice_without_its_key_paths_is_what_it_is() -> None:
    values = cut(Experiment().model_dump(mode="json"), ("camera", "infer.steps"))
    assert restored(values, None) == values
    assert slice_config(restored(values, ("camera", "infer.steps"))) == slice_config(values)


def test_the_walk_over_instances_meets_entries_of_mappings() -> None:
    met = {".".join(path): type(section) for path, section in sections(Experiment())}
    assert met["metrics.metrics.psnr"].__name__ == "Psnr"
    assert met["data.renderer.lighting"].__name__ == "Uniform"
    assert "unet.rendered" not in met
