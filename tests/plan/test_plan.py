"""Identity: an id changes exactly where the slice that its stage reads changes."""

import dataclasses
import json
import subprocess
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT

from z1g.config.lookup import unwrap
from z1g.config.resolve import Ablation, merge, resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import YamlFile
from z1g.core.errors import UserError
from z1g.core.slots import OneOf, Runtime, Section, kinds
from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions, evaluation_objects, unique_ids
from z1g.plan.folder import StageFolder
from z1g.plan.identity import digest, without_runtime
from z1g.plan.plan import Plan
from z1g.plan.slices import cut, slice_config
from z1g.plan.stages import STAGES
from z1g.sources import EvaluationSet

ORDER = list(STAGES)
READ_BY = {
    "data.split": "autodecoder",
    "data.category_power": "autodecoder",
    "data.splats": "fit",
    "data.rotations": "fit",
    "data": "ingest",
    "camera": "ingest",
    "splat": "fit",
    "render": "fit",
    "fit": "fit",
    "model.unet_size": "unet",
    "model.vision_size": "unet",
    "model.vision": "unet",
    "model.train_vision": "unet",
    "model.prompt_tokens": "unet",
    "model": "autodecoder",
    "representation.denoiser": "unet",
    "representation.zero_terminal_snr": "unet",
    "representation": "autodecoder",
    "autodecoder.test_steps": "codes",
    "autodecoder.test_lr": "codes",
    "autodecoder": "autodecoder",
    "unet": "unet",
    "infer": "infer",
    "metrics": "metrics",
}
"""The first stage that reads a part of the tree; longest match wins, everything downstream follows."""


def experiment(values: dict[str, Any] | None = None) -> Experiment:
    base = {"model": {"kind": "scratch"}, "representation": {"input_size": 512}, "camera": {"train_views": 20}}
    return resolve([YamlFile(Path("a.yaml"), merge(base, values or {}))])


def from_there_on(name: str) -> list[str]:
    """A stage and all that depend on it."""
    return [stage for stage in ORDER if stage == name or name in STAGES[stage].upstream]


def stage_ids(values: dict[str, Any] | None = None) -> dict[str, str]:
    planned = Plan([Ablation("a", "", "full", {}, experiment(values))], Path("results")).ablations["a"]
    return {name: stage.id for name, stage in planned.stages.items()}


def other_value(annotation: Any, value: Any) -> Any:
    """A valid value that differs, tried one after the other by the caller."""
    origin = get_origin(annotation)
    if origin is typing.Literal:
        return [choice for choice in get_args(annotation) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value + 16, value - 1]
    if isinstance(value, float):
        return [value * 0.9 or 0.01, value + 0.01]
    if isinstance(value, str):
        return [value + "x", "workflow", "x" + value]
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return [("workflow/objects/crate",)]
    if isinstance(value, tuple) and value:
        return [(*value[:-1], value[-1] * 2), (*value[:-1], value[-1] * 0.9)]
    if isinstance(value, tuple):
        return [("scale",)]
    if value is None and annotation is str:
        return ["x"]
    return [1, 0.5, 512, 2] if value is None else []


def scenes_of_the_original() -> str:
    """A folder that its data source would list."""
    folder = Path(tempfile.mkdtemp())
    for name in ("scene", "another"):  # of one alone, the split may leave nothing for training
        (folder / name).mkdir()
        (folder / name / "000.png").touch()
    return str(folder)


def instances_of_g_objaverse() -> str:
    """Another folder of that kind."""
    folder = Path(tempfile.mkdtemp())
    for instance in ("10010", "10011"):
        (folder / "0" / instance / "campos_512_v4").mkdir(parents=True)
    (folder / "index.json").write_text('["0/10010", "0/10011"]')
    return str(folder)


def scanned_objects() -> str:
    """A folder of scanned objects, which has the layout of another evaluation set, too."""
    folder = Path(tempfile.mkdtemp())
    for i, name in enumerate(("one", "two")):
        (folder / name / "meshes").mkdir(parents=True)
        (folder / name / "meshes" / "model.obj").write_text(f"v {i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    return str(folder)


def listed_objects(root: str) -> str:
    """A list of the objects of such a folder by content."""
    entries = EvaluationSet(root=root).list_objects()
    file = Path(tempfile.mkdtemp()) / "list.csv"
    file.write_text("path,content\n" + "".join(f"{entry.source},{entry.content}\n" for entry in entries))
    return str(file)


SCANNED = scanned_objects()
REQUIRED: dict[tuple[str, str], dict[str, Any]] = {
    ("CodeSource", "cache"): {"path": "Snakefile"},
    ("DataSource", "evaluation_set"): {
        "root": SCANNED,
        # Slots within a slot of another kind have none by default.
        "renderer": {"kind": "raster", "lighting": {"kind": "uniform"}},
    },
    ("DataSource", "g_objaverse"): {"root": instances_of_g_objaverse()},
    ("DataSource", "original"): {"renders": scenes_of_the_original(), "splats": tempfile.mkdtemp()},
}
"""Options without a default."""
PUBLISHED = {"model": {"kind": "zero123plus"}}
NEEDS: dict[str, dict[str, Any]] = {
    "model": {"representation": {"kind": "attributes"}},
    "model: trained": {"splat": {"size": 64}, "representation": {"input_size": 64, "sees": "splats"}},
    "model.code_channels": {"unet": {"normalize_codes": True}},
    "representation": {**PUBLISHED, "autodecoder": {"codes": {"train": True}}},
    "representation.decoder.mode": PUBLISHED,
    "representation.sees": {"model": {"kind": "scratch"}},
    "unet.finetune": PUBLISHED,
    "unet.distill": {"infer": {"sampler": {"kind": "ddim"}, "steps": 4, "guidance": 1.0}},
    "data.split.fold": {"data": {"split": {"folds": 2}}},
    "data.renderer.lighting": {"data": {"renderer": {"kind": "blender"}}},
}
"""What else must be chosen for every value of an option to make sense."""


def leaves(section: Section, path: tuple[str, ...], runtime: bool) -> Iterator[tuple[tuple[str, ...], list[Any], bool]]:
    """Every leaf below a section: key path, candidate values, whether it is outside of identities."""
    for name, field in type(section).model_fields.items():
        annotation, metadata = unwrap(field.annotation)
        metadata = [*field.metadata, *metadata]
        value, here = getattr(section, name), (*path, name)
        off = runtime or any(isinstance(item, Runtime) for item in metadata)
        if name == "kind":
            continue
        if any(isinstance(item, OneOf) for item in metadata):
            others = [
                {"kind": kind, **REQUIRED.get((annotation.__name__, kind), {})}
                for kind in kinds(annotation)
                if kind not in (value.kind, "zero123plus")
            ]
            if others:
                yield here, others, off
        if isinstance(value, Section):
            yield from leaves(value, here, off)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from leaves(item, (*here, key), off)
        elif isinstance(annotation, type) and issubclass(annotation, Section):
            yield here, [{}], off
        else:
            yield here, other_value(annotation, value), off


ALL_LEAVES = {".".join(path): (path, values, off) for path, values, off in leaves(experiment(), (), False)}


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value


@pytest.mark.parametrize("name", sorted(ALL_LEAVES))
def test_a_changed_value_changes_the_ids_of_its_readers_and_of_nothing_else(name: str) -> None:
    path, candidates, runtime = ALL_LEAVES[name]
    needs = NEEDS.get(name, {})
    before = stage_ids(needs)
    for value in candidates:
        try:
            after = stage_ids(merge(needs, nested(path, value)))
        except UserError:
            continue
        changed = [stage for stage in ORDER if before[stage] != after[stage]]
        if runtime:
            assert changed == []
        else:
            part = max((p for p in READ_BY if name == p or name.startswith(p + ".")), key=len)
            assert changed == from_there_on(READ_BY[part])
        return
    pytest.fail(f"no valid other value found for {name}; the walker must learn it")


def slots(section: Section, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Key path and family of every slot below a section."""
    for name, field in type(section).model_fields.items():
        annotation, metadata = unwrap(field.annotation)
        value, here = getattr(section, name), (*path, name)
        if isinstance(value, dict):
            family, _ = unwrap(get_args(annotation)[1])
            for key, item in value.items():
                yield (*here, key), family
                yield from slots(item, (*here, key))
        elif isinstance(value, Section):
            if any(isinstance(item, OneOf) for item in [*field.metadata, *metadata]):
                yield here, annotation
            yield from slots(value, here)


def kinds_by_place() -> dict[str, tuple[tuple[str, ...], dict[str, Any], type[Section]]]:
    """Every kind that every slot takes: key path, configuration that chooses it, its class."""
    results = {}
    for path, family in slots(experiment(), ()):
        for kind, option in kinds(family).items():
            chosen = {"kind": kind, **REQUIRED.get((family.__name__, kind), {})}
            place = ".".join(path)
            values = merge(NEEDS.get(f"{place}: {kind}", NEEDS.get(place, {})), nested(path, chosen))
            try:
                experiment(values)
            except UserError:
                continue  # a loss that the stage cannot use
            results[f"{'.'.join(path)}: {kind}"] = (path, values, option)
    return results


KINDS = kinds_by_place()


def test_every_kind_is_usable_somewhere() -> None:
    families = {family for _, family in slots(experiment(), ())}
    assert len(families) >= 10
    assert {option for _, _, option in KINDS.values()} == {o for family in families for o in kinds(family).values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_options_of_every_kind_count(name: str) -> None:
    path, with_kind, _ = KINDS[name]
    section: Any = experiment(with_kind)
    for part in path:
        section = section[part] if isinstance(section, dict) else getattr(section, part)
    for leaf, candidates, runtime in leaves(section, path, False):
        needed = merge(with_kind, NEEDS.get(".".join(leaf), {}))
        before = stage_ids(needed)
        candidates = ["pyproject.toml"] if leaf[-2:] == ("codes", "path") or leaf[-1] == "trunk" else candidates
        candidates = [scenes_of_the_original()] if leaf[-1] == "renders" else candidates
        another = scanned_objects if name.endswith("evaluation_set") else instances_of_g_objaverse
        candidates = [another()] if leaf[-1] == "root" else candidates
        candidates = [listed_objects(SCANNED)] if leaf[-1] == "objects" else candidates
        candidates = [instances_of_g_objaverse() + "/index.json"] if leaf[-1] == "index" else candidates
        for value in candidates:
            try:
                after = stage_ids(merge(needed, nested(leaf, value)))
            except UserError:
                continue
            changed = [stage for stage in ORDER if before[stage] != after[stage]]
            part = max((p for p in READ_BY if ".".join(leaf) == p or ".".join(leaf).startswith(p + ".")), key=len)
            assert changed == ([] if runtime else from_there_on(READ_BY[part])), leaf
            break
        else:
            pytest.fail(f"no valid other value found for {leaf}; the walker must learn it")


def test_a_stages_version_is_part_of_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage_ids()
    for name in ORDER:
        with monkeypatch.context() as patch:
            patch.setitem(STAGES, name, dataclasses.replace(STAGES[name], version=99))
            after = stage_ids()
        assert [stage for stage in ORDER if before[stage] != after[stage]] == from_there_on(name)


def test_mixed_diffusion_makes_stage_one_depend_on_the_unet() -> None:
    mixed = {"autodecoder": {"mix_diffusion": {"interval": 10}}}
    wider = {"model": {"prompt_tokens": 5}}
    assert stage_ids(mixed)["autodecoder"] != stage_ids(merge(mixed, wider))["autodecoder"]
    assert stage_ids()["autodecoder"] == stage_ids(wider)["autodecoder"]
    for change in (
        {"unet": {"condition_size": 64}},
        {"unet": {"condition_resize": "bicubic"}},
        {"autodecoder": {"mix_diffusion": {"interval": 11}}},
    ):
        assert stage_ids(mixed)["autodecoder"] != stage_ids(merge(mixed, change))["autodecoder"]


def test_a_stage_sees_only_its_slice(tmp_path: Path) -> None:
    plan = Plan([Ablation("a", "", "full", {}, experiment())], tmp_path)
    plan.write()
    for name, stage in plan.ablations["a"].stages.items():
        config = StageFolder.open(tmp_path / name / stage.id).config
        for section in Experiment.model_fields:
            if section in stage.config:
                assert getattr(config, section) is not None
            else:
                with pytest.raises(AttributeError):
                    getattr(config, section)
    ingest = StageFolder.open(plan.folder(*plan.ablations["a"].stages["ingest"].key)).config
    assert ingest.data.renderer.resolution == 512
    with pytest.raises(AttributeError):
        _ = ingest.data.split


def test_a_plan_survives_on_disk_for_jobs_that_wait(tmp_path: Path) -> None:
    plan = Plan([Ablation("a", "", "full", {}, experiment())], tmp_path)
    plan.write()
    edited = Plan([Ablation("a", "", "full", {}, experiment({"splat": {"size": 64}}))], tmp_path)
    old = plan.ablations["a"].stages["fit"]
    assert edited.stage("fit", old.id) == old
    with pytest.raises(UserError, match="no ablation plans fit 0000"):
        edited.stage("fit", "0000")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(st.text("abcd", min_size=1, max_size=2), JSON, max_size=4))
def test_digests_ignore_key_order_and_see_every_value(values: dict[str, Any]) -> None:
    backwards = dict(reversed(values.items()))
    assert digest(values) == digest(backwards)
    assert digest(values) != digest({**values, "new": 1})


@pytest.mark.slow
@given(st.data(), st.dictionaries(st.text("abcd", min_size=1, max_size=2), JSON, max_size=4))
def test_a_cut_holds_what_was_named_and_nothing_else(data: st.DataObject, values: dict[str, Any]) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(values)), unique=True)) if values else []
    part = cut(values, wanted)
    assert part == {name: values[name] for name in wanted}
    assert cut(values, [*values, *(f"!{name}" for name in wanted)]) == {
        name: value for name, value in values.items() if name not in wanted
    }
    for value in part.values():
        if isinstance(value, (dict, list)):
            value.clear()
    assert part == {} or cut(values, wanted) == {name: values[name] for name in wanted}, "a cut is a copy"


def test_cut_takes_paths_in_and_out() -> None:
    values = {"a": {"kind": "k", "b": 1, "c": {"d": 2, "e": 3}}, "f": 4}
    assert cut(values, ("a", "!a.c.d")) == {"a": {"kind": "k", "b": 1, "c": {"e": 3}}}
    assert cut(values, ("a.c.d", "f")) == {"a": {"kind": "k", "c": {"d": 2}}, "f": 4}
    assert values["a"]["c"] == {"d": 2, "e": 3}


def test_runtime_fields_leave_the_dump() -> None:
    kept = without_runtime(experiment())
    assert "resources" not in kept
    assert "workers" not in kept["unet"]["train"]
    assert "steps" in kept["unet"]["train"]


def test_slices_validate() -> None:
    full = experiment().model_dump(mode="json")
    config = slice_config({"camera": full["camera"], "data": {"kind": "meshes", "split": full["data"]["split"]}})
    assert config.camera == experiment().camera
    assert config.data.split == experiment().data.split


def manifest(n: int, chunk_size: int = 4) -> Manifest:
    return Manifest(tuple(ObjectEntry(f"o{i}", f"p/{i}.obj") for i in range(n)), chunk_size)


@pytest.mark.slow
@given(st.integers(2, 60), st.integers(0, 5), st.floats(0.01, 0.9))
def test_splits_hold_out_something_and_new_objects_move_nobody(n: int, seed: int, fraction: float) -> None:
    options = SplitOptions(test_fraction=fraction, seed=seed)
    small, large = manifest(n).splits(options), manifest(n + 10).splits(options)
    assert set(small.values()) == {"train", "test"}
    if 1 < sum(split == "test" for split in small.values()) < n - 1:
        assert all(large[name] == split for name, split in small.items())


@given(st.integers(1, 30), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_larger_share_holds_out_the_same_objects_and_others(n: int, one: float, other: float) -> None:
    few, many = (manifest(n).splits(SplitOptions(test_fraction=share)) for share in sorted((one, other)))
    assert all(many[name] == "test" for name, split in few.items() if split == "test")


def test_splits_at_their_limits() -> None:
    assert set(manifest(20).splits(SplitOptions(test_fraction=0)).values()) == {"train"}
    assert list(manifest(1).splits(SplitOptions(test_fraction=0.9)).values()) in (["train"], ["test"])
    assert manifest(0).splits(SplitOptions()) == {}
    shuffled = Manifest(tuple(reversed(manifest(20).objects)), 7)
    assert shuffled.splits(SplitOptions(test_fraction=0.4)) == manifest(20).splits(SplitOptions(test_fraction=0.4))
    others = [manifest(40).splits(SplitOptions(test_fraction=0.5, seed=seed)) for seed in range(3)]
    assert others[0] != others[1] != others[2]


@given(st.integers(1, 50), st.integers(1, 20))
def test_chunks_hold_every_object_once_and_in_order(n: int, chunk_size: int) -> None:
    objects = manifest(n, chunk_size)
    chunks = [objects.chunk(i) for i in range(objects.n_chunks)]
    assert [entry for chunk in chunks for entry in chunk] == list(objects.objects)
    assert all(len(chunk) == chunk_size for chunk in chunks[:-1])
    assert chunks[-1]
    assert objects.chunk(objects.n_chunks) == ()


def test_samples_are_chunked_by_the_objects_that_are_evaluated(tmp_path: Path) -> None:
    for train_objects, chunk_size in ((0, 16), (3, 1), (3, 2), (100, 3)):
        values = {"infer": {"train_objects": train_objects, "chunk_size": chunk_size}}
        planned = Plan([Ablation("a", "", "full", {}, experiment(values))], tmp_path).ablations["a"]
        n = len(evaluation_objects(planned.manifest, experiment().data.split, train_objects))
        assert planned.stages["infer"].n_chunks == -(-n // chunk_size)


def test_manifest_chunks_and_round_trip(tmp_path: Path) -> None:
    objects = manifest(10)
    assert objects.n_chunks == 3
    assert [len(objects.chunk(i)) for i in range(3)] == [4, 4, 2]
    objects.save(tmp_path / "m.jsonl")
    assert Manifest.load(tmp_path / "m.jsonl") == objects
    assert objects.digest() != manifest(11).digest() != manifest(11, 5).digest()


def test_evaluation_takes_all_test_objects_and_some_training_objects() -> None:
    options = SplitOptions(test_fraction=0.3)
    chosen = evaluation_objects(manifest(40), options, 5)
    splits = manifest(40).splits(options)
    assert {name for name, split in chosen if split == "test"} == {n for n, s in splits.items() if s == "test"}
    assert sum(split == "train" for _, split in chosen) == 5
    assert all(splits[name] == split for name, split in chosen)
    # More of them are the same ones and others: samples made before stay samples.
    assert set(chosen) < set(evaluation_objects(manifest(40), options, 8))
    assert {name for name, _ in evaluation_objects(manifest(40), options, 1000)} == set(splits)
    assert all(split == "test" for _, split in evaluation_objects(manifest(40), options, 0))


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8, unique=True))
def test_ids_are_words_and_unique(names: list[str]) -> None:
    ids = unique_ids(names)
    assert len(set(ids)) == len(names)
    assert all(set(word) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") for word in ids)


def test_ids_stay_unique_when_a_name_looks_like_a_hashed_one() -> None:
    hashed = unique_ids(["a.b", "a_b"])[0]
    ids = unique_ids(["a.b", "a_b", hashed])
    assert len(set(ids)) == 3
    assert unique_ids(["crate", "a"]) == ["crate", "a"]


@pytest.mark.slow
def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, json; from z1g.cli.main import main; "
        "code = main(['plan', '--scale', 'scratch']); "
        "heavy = ('torch', 'diffusers', 'transformers', 'numba', 'accelerate'); "
        "print(json.dumps([code, [m for m in heavy if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


# Sets of ablations


def ablation_folder(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("base: scratch\n")
    return root


def named(folder: Path, *names: str) -> list[str]:
    return list(Plan.load("scratch", names or None, Path("results"), folder, ROOT / "configs").ablations)


def test_a_subfolder_is_a_set_that_is_asked_for_by_name(tmp_path: Path) -> None:
    folder = ablation_folder(tmp_path, "a.yaml", "b.yaml", "paths/c.yaml", "paths/d.yaml", "codes/e.yaml")
    assert named(folder) == ["a", "b"]
    assert named(folder, "paths") == ["c", "d"]
    assert named(folder, "b", "d", "codes", "paths") == ["b", "d", "e", "c"]
    with pytest.raises(UserError, match='did you mean "paths"'):
        named(folder, "path")


def test_two_ablations_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yaml and .*paths/a\.yaml have the same name"):
        named(ablation_folder(tmp_path, "a.yaml", "paths/a.yaml"), "a")


def test_the_shipped_sets_are_opt_in() -> None:
    """`ablation_all` at scale scratch has to stay affordable on a CPU."""
    assert len(named(ROOT / "ablations")) <= 8
    assert len(named(ROOT / "ablations", "decoder", "codes", "losses", "few_objects", "quirks")) >= 25
