"""Missing, extra, wrongly named, empty, not finite, mirrored and far too large outputs are listed with reasons."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import plan
from support.peer_objects import World, world

from z1g.cli.main import main
from z1g.config.peers import PeerOptions
from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.gaussians import files
from z1g.peers.evaluate import evaluate
from z1g.peers.listing import find_outputs, read_list
from z1g.report.peers import read_peer

FIRST, SECOND, THIRD, FOURTH = (
    "object0-1881563e2d", "object1-637c5e68e1", "object2-2b7a09a135", "object3-c7ca9a2598",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"))


def options(folder: Path, **more: object) -> PeerOptions:
    return PeerOptions.model_validate({"outputs": str(folder), "frame": "z1g", **more})


def test_faults_are_listed_and_no_mean_contains_them(made: World, tmp_path: Path) -> None:
    good = made.splats[FIRST]
    files.write(tmp_path / f"{FIRST}.ply", good)
    large = made.splats[SECOND].clone()
    large[:, :7] *= torch.tensor([1000.0] * 3 + [1.0] + [1000.0] * 3)
    files.write(tmp_path / f"{SECOND}.ply", large)
    text = (tmp_path / f"{FIRST}.ply").read_bytes()
    header = text.index(b"end_header\n") + len(b"end_header\n")
    broken = np.frombuffer(text[header:], "<f4").copy()
    broken[34] = np.nan
    (tmp_path / f"{THIRD}.ply").write_bytes(text[:header] + broken.tobytes())
    empty = text[:header].replace(f"element vertex {len(good)}".encode(), b"element vertex 0")
    (tmp_path / f"{FOURTH}.ply").write_bytes(empty)
    (tmp_path / "objectO-1881563e2d.ply").write_bytes(text)
    record = evaluate(made.results, "faulty", options(tmp_path), "micro")
    assert list(record["truth"]) == [FIRST]
    reasons = record["problems"]
    assert re.match(r"wrong size: it is \d\.?\d*e?\+?0?\d* times as large as the object in this frame", reasons[SECOND])
    assert "1 of 3000 Gaussians contain numbers that are not finite" in reasons[THIRD]
    assert reasons[FOURTH] == "it contains no Gaussians"
    assert reasons["objectO-1881563e2d.ply"].startswith("wrongly named: no object is called")
    assert FIRST in reasons["objectO-1881563e2d.ply"], "the nearest name is given"
    measured = read_peer(made.results / "peers" / "faulty").measured
    assert {row["object"] for row in [*measured.rows, *measured.objects]} == {FIRST}


def test_a_mirrored_output_is_refused_whatever_the_frame(made: World, tmp_path: Path) -> None:
    for name, x in made.splats.items():
        mirrored = x.clone()
        mirrored[:, 0] *= -1
        mirrored[:, 8] *= -1  # of a quaternion w, x, y, z: y and z change sign with x, and the whole sign is free
        mirrored[:, 7] *= -1
        files.write(tmp_path / f"{name}.ply", mirrored if name != FIRST else x)
    record = evaluate(made.results, "mirrored", options(tmp_path), "micro")
    assert list(record["truth"]) == [FIRST]
    assert all(
        why.startswith("mirrored: its mirror image fits the true views with") for why in record["problems"].values()
    )


def test_too_large_outputs_are_measured_once_they_are_registered(made: World, tmp_path: Path) -> None:
    large = made.splats[SECOND].clone()
    large[:, :3] *= 1000
    large[:, 4:7] *= 1000
    files.write(tmp_path / f"{SECOND}.ply", large)
    (tmp_path / "list.csv").write_text(f"object\n{SECOND}\n")
    record = evaluate(
        made.results, "large", options(tmp_path, registered=True, objects=str(tmp_path / "list.csv")), "micro"
    )
    assert record["problems"] == {}
    assert record["registrations"][SECOND]["scale"] == pytest.approx(1e-3, rel=0.05)


def test_nothing_that_can_be_measured_is_an_error_with_the_reasons(made: World, tmp_path: Path) -> None:
    transparent = made.splats[FIRST].clone()
    transparent[:, 3] = 0.001
    files.write(tmp_path / f"{FIRST}.ply", transparent)
    with pytest.raises(UserError) as raised:
        evaluate(made.results, "nothing", options(tmp_path), "micro")
    assert "could be measured" in str(raised.value)
    assert f"{FIRST}: nothing can be seen of it" in str(raised.value)
    assert f"{SECOND}: missing" in str(raised.value)
    assert not (made.results / "peers" / "nothing" / "peer.json").exists()


def test_outputs_that_cannot_be_measured_leave_an_earlier_result(made: World, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        folder = made.results / "peers" / "again"
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    files.write(tmp_path / f"{FIRST}.ply", made.splats[FIRST])
    evaluate(made.results, "again", options(tmp_path), "micro")
    before = content()
    assert any(name.startswith("images/") for name in before)
    transparent = made.splats[FIRST].clone()
    transparent[:, 3] = 0.001
    files.write(tmp_path / f"{FIRST}.ply", transparent)
    with pytest.raises(UserError, match="could be measured"):
        evaluate(made.results, "again", options(tmp_path), "micro")
    assert content() == before


def test_a_system_is_not_called_like_an_ablation(
    made: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write(tmp_path / f"{FIRST}.ply", made.splats[FIRST])
    words = ["--results", str(made.results), "--outputs", str(tmp_path), "--frame", "z1g", "--name", "micro"]
    assert main(["evaluate", *words]) == 2
    assert f"micro is an ablation of {made.results}; give the system another --name" in capsys.readouterr().err
    assert not (made.results / "peers" / "micro").exists()


def test_files_are_found_in_folders_by_lists_and_ambiguous_ones_are_named(tmp_path: Path) -> None:
    for name in ("a.ply", "a.spz", "b/mesh.glb", "c/one.ply", "c/two.ply", "0/mesh.obj", "x.ply", ".hidden.ply"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    wanted: dict[str, str | None] = {"a": None, "b": None, "c": None, "d": "0/mesh.obj", "e": "../e.ply", "f": None}
    listed = find_outputs(tmp_path, wanted, ["x"])
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in listed.files.items()} == {
        "b": "b/mesh.glb", "d": "0/mesh.obj",
    }  # fmt: skip
    reasons = dict(listed.problems)
    assert reasons["a"] == "ambiguous: it has several files: a.ply, a.spz"
    assert reasons["c"] == "ambiguous: it has several files: c/one.ply, c/two.ply"
    assert reasons["e"] == "missing: the list names ../e.ply, which is not in the folder"
    assert reasons["f"].startswith("missing: there is no f.ply")
    assert reasons["x.ply"] == "extra: this object is not in the list of evaluated ones"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n# no\n\nb\n", {"a": None, "b": None}),
        ("object,split,file\na,test,0/mesh.glb\nb,train,\n", {"a": "0/mesh.glb", "b": None}),
        ("\ufeffobject,file\na,0/mesh.glb\na,0/mesh.glb\n", {"a": "0/mesh.glb"}),
        ("\ufeffa\n", {"a": None}),
    ],
)
def test_lists(tmp_path: Path, text: str, expected: dict[str, str | None]) -> None:
    (tmp_path / "list").write_text(text)
    assert read_list(tmp_path / "list", ["a", "b"]) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lists no object"),
        ("a\nbb\n", "'bb' is not an evaluated object"),
        ("object,file\na,1.ply\nb,2.ply\na,3.ply\n", r"'a' has two files, 1\.ply and 3\.ply; remove a row"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(UserError, match=why):
        read_list(tmp_path / "list", ["a", "b"])


def test_an_object_that_ingest_rejected_is_listed(tmp_path: Path) -> None:
    made = world(tmp_path / "world", skip=(SECOND,))
    (tmp_path / "out").mkdir()
    for name in (FIRST, SECOND):
        files.write(tmp_path / "out" / f"{name}.ply", made.splats[FIRST])
    record = evaluate(made.results, "some", options(tmp_path / "out"), "micro")
    assert record["problems"][SECOND] == "it was not rendered: ingest quarantined it"


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no outputs"):
        find_outputs(tmp_path, {"a": None})


def test_the_command_says_what_was_not_measured(made: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "system"
    folder.mkdir()
    files.write(folder / f"{FIRST}.ply", made.splats[FIRST])
    (folder / "cost.json").write_text('{"seconds": 2.5, "parameters": 4e8, "hardware": "one H100"}')
    words = ["evaluate", "--results", str(made.results), "--outputs", str(folder), "--frame", "z1g"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "system: 1 of 4 objects measured as micro" in said
    assert f"not measured: {SECOND}: missing" in said
    assert read_json(made.results / "peers" / "system" / "peer.json")["cost"] == {
        "seconds": 2.5, "parameters": 4e8, "memory_gb": None, "hardware": "one H100",
    }  # fmt: skip
    assert main([*words, "--name", "../up"]) == 2
    assert "--name: expected a word" in capfd.readouterr().err
    assert main([*words, "--like", "macro"]) == 2
    assert main(["evaluate", "--results", str(made.results)]) == 2
    assert "give --outputs FOLDER and --frame NAME" in capfd.readouterr().err
    (folder / "cost.json").write_text('{"second": 2.5}')
    assert main(words) == 2
    assert "cost.json: second: Extra inputs are not permitted; its keys are seconds" in capfd.readouterr().err


def test_true_renders_that_are_missing_are_named(made: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"chunk 0 of the true renders is missing; run `snakemake` up to ingest"):
        evaluate(plan(tmp_path).results, "early", options(tmp_path), "micro")


@pytest.mark.parametrize("number", ["-1", "nan", "many", "1e99"])
def test_numbers_of_parameters_are_checked(made: World, tmp_path: Path, number: str) -> None:
    words = ["evaluate", "--results", str(made.results), "--outputs", str(tmp_path), "--frame", "z1g"]
    with pytest.raises(SystemExit):
        main([*words, "--parameters", number])


def test_changed_rows_are_noticed(made: World, tmp_path: Path) -> None:
    files.write(tmp_path / f"{FIRST}.ply", made.splats[FIRST])
    evaluate(made.results, "changed", options(tmp_path), "micro")
    rows = made.results / "peers" / "changed" / "metrics.jsonl"
    rows.write_text(rows.read_text().replace('"psnr": 3', '"psnr": 4'))
    with pytest.raises(UserError, match=r"metrics\.jsonl has changed since it was written"):
        read_peer(rows.parent)
