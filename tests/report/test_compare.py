"""`z1g compare`: its numbers, rejected comparisons, and formats."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.report_tree import build

from z1g.cli import compare as verb
from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl, write_json, write_jsonl
from z1g.report.collect import MetricInfo
from z1g.report.compare import compare
from z1g.report.compare_text import FORMATS
from z1g.report.judge import judge
from z1g.report.replicates import Table
from z1g.report.verdicts import Figure

SPECS: dict[str, dict[str, Any]] = {
    "base": {"seed": 1, "stage1": "s1", "gain": 0, "config": {"unet": {"lr": 1e-5}}},
    "fast_1%": {"seed": 2, "stage1": "s1", "gain": 1.5, "config": {"unet": {"lr": 1e-4}}},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(tmp_path / "results", SPECS)
    return tmp_path / "results"


def test_means_and_paired_differences_of_synthetic_numbers(tree: Path) -> None:
    comparison = compare(tree, ["base", "fast_1%"], "test", "sampled")
    base, fast = comparison.entries["psnr"]
    # chair: 20, horse: 20 − 0.7, each plus 0.1 on average over views; the other result is 1.5 dB better on both.
    assert base.value is not None
    assert fast.difference is not None
    assert base.value.value == pytest.approx(19.75)
    assert base.difference is None
    assert fast.difference == Figure(pytest.approx(1.5), None, None, 2)
    assert fast.judged is not None
    assert (fast.judged.verdict, fast.judged.about, fast.judged.p) == ("too few to say", "models", None)
    assert comparison.family == 0
    assert comparison.entries["chamfer"][1].difference.value == pytest.approx(-1.5 / 200)  # type: ignore[union-attr]
    fd = comparison.entries["fd"][1]
    assert fd.value == Figure(200.0, None, None, 2)
    assert fd.difference == Figure(0.0, None, None, 2)
    assert "st_lpips" not in comparison.entries
    assert "base: ST-LPIPS is missing: no weights in the cache" in comparison.notes
    assert comparison.config == {"unet.lr": [1e-5, 1e-4]}
    train = compare(tree, ["base", "fast_1%"], "train", "sampled").entries["chamfer"][1]
    assert train.difference is not None
    assert train.difference.n == 3  # the crate has no mesh


@given(
    pairs=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=12),
    shift=st.floats(-5, 5),
    extra=st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_paired_differences_use_common_objects_only(pairs: list[tuple[float, float]], shift: float, extra: int) -> None:
    info = {"m": MetricInfo("M", higher_is_better=True)}
    base = {f"o{i}": a for i, (a, _) in enumerate(pairs)}
    values = {f"o{i}": b for i, (_, b) in enumerate(pairs)}
    rows = [base | {f"x{i}": 1e6 for i in range(extra)}, values | {"y": -1e6}, {n: v + shift for n, v in base.items()}]
    judged, family = judge({"m": [Table.of([row]) for row in [*rows, {"z": 1.0}]]}, info)
    first, other, constant, apart = judged["m"]
    assert first is None
    assert apart is None
    assert other is not None
    gaps = [b - a for a, b in pairs]
    assert other.figure.n == len(pairs)
    assert other.figure.value == pytest.approx(np.mean(gaps), abs=1e-9)
    assert family == (2 if len(pairs) >= 5 else 0)
    assert constant is not None
    assert constant.figure.value == pytest.approx(shift, abs=1e-9)


def test_verdicts_have_directions_and_say_what_they_are_about() -> None:
    objects = np.arange(8.0)
    noise = np.array([[0.0], [0.01], [-0.01]])
    names = tuple(f"o{i}" for i in range(8))

    def table(values: np.ndarray, trained: bool = True) -> Table:
        return Table(values, names, 0, trained)

    def verdicts(base: Table, other: Table) -> list[tuple[str, str]]:
        metrics = {str(up): MetricInfo("M", higher_is_better=up) for up in (True, False, None)}
        judged, _ = judge({name: [base, other] for name in metrics}, metrics)
        return [(one.verdict, one.about) for row in judged.values() for one in row if one]

    seeds = table(objects + noise)
    more = table(objects + 1 + noise + 0.05 * np.resize([1, -1], 8))
    assert verdicts(seeds, more) == [("better", "methods"), ("worse", "methods"), ("higher", "methods")]
    assert verdicts(more, seeds) == [("worse", "methods"), ("better", "methods"), ("lower", "methods")]
    assert verdicts(seeds, table(objects[None] + 1)) == [(word, "models") for word in ("better", "worse", "higher")]
    splats = table(objects[None], False), table(objects[None] + 1, False)
    assert verdicts(*splats) == [(word, "splats") for word in ("better", "worse", "higher")]
    loud = table(objects + 40 * noise), table(objects + 1 + 40 * noise)
    assert verdicts(*loud) == [("unclear", "methods")] * 3, "a training differs from the next by as much"
    assert verdicts(seeds, seeds)[0] == ("equal", "methods")
    assert verdicts(splats[0], splats[0])[0] == ("equal", "splats")


def test_one_large_family_needs_more_than_one_comparison() -> None:
    base, gaps = np.arange(12.0), 0.784 + np.resize([1, -1], 12)  # t = 2.6
    tables = [Table(values[None], tuple(f"o{i}" for i in range(12)), 0, True) for values in (base, base + gaps)]
    info = MetricInfo("M", higher_is_better=True)
    alone, n = judge({"m": tables}, {"m": info})
    many, m = judge({f"m{i}": tables for i in range(9)}, {f"m{i}": info for i in range(9)})
    one, among = alone["m"][1], many["m0"][1]
    assert one is not None
    assert among is not None
    assert (n, m) == (1, 9)
    assert one.p == one.p_family == among.p
    assert among.p_family == pytest.approx(9 * among.p)
    assert (one.verdict, among.verdict) == ("better", "unclear")


def test_results_are_found_by_name_id_and_file(tree: Path) -> None:
    by_file = str(tree / "metrics/me-fast_1%/metrics.jsonl")
    named = compare(tree, ["base", "fast_1%"], "test", "sampled").entries
    assert compare(tree, ["me-base", by_file], "test", "sampled").entries == named
    assert compare(tree, ["base", str(Path(by_file).parent)], "test", "sampled").entries == named
    with pytest.raises(UserError, match='did you mean "base"'):
        compare(tree, ["bsae"], "test", "sampled")


def test_options_of_a_bare_id_come_from_its_stages(tree: Path) -> None:
    for name, rate in (("base", 1), ("fast_1%", 2)):
        ids = read_json(tree / f"ablations/{name}/plan.json")["stages"]
        slices = {"unet": {"unet": {"train": {"lr": rate}}, "model": {"kind": "x"}}, "metrics": {"metrics": {}}}
        for stage, identity in ids.items():
            upstream = {key: value for key, value in ids.items() if key != "metrics"} if stage == "metrics" else {}
            record = {"stage": stage, "id": identity, "upstream": upstream, "config": slices.get(stage, {})}
            write_json(tree / stage / identity / "stage.json", record)
    comparison = compare(tree, ["me-base", "me-fast_1%"], "test", "sampled")
    assert comparison.config == {"unet.train.lr": [1, 2]}
    assert comparison.contenders[1].stages["unet"] == "un-fast_1%"


def change(tree: Path, kind: str) -> None:
    """Change the second result's test set."""
    folder = tree / "metrics/me-fast_1%"
    rows, about = read_jsonl(folder / "metrics.jsonl"), read_json(folder / "metrics.json")
    if kind == "object":
        rows = [row for row in rows if row["object"] != "horse"]
    elif kind == "view":
        rows = [row for row in rows if (row["object"], row["view"]) != ("chair", 2)]
    else:
        about["truth"]["chair"] = "drawn with another light"
    write_jsonl(folder / "metrics.jsonl", rows)
    write_json(folder / "metrics.json", about)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("object", "only in base: horse"),
        ("view", "measured on other views: chair"),
        ("image", "with other ground-truth images: chair"),
    ],
)
def test_different_test_sets_are_rejected(
    tree: Path, kind: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(tree, kind)
    assert main(["compare", "base", "fast_1%", "--results", str(tree)]) == 2
    error = capsys.readouterr().err
    assert "base and fast_1% were measured on different test sets" in error
    assert message in error
    if kind != "image":
        assert "crate" not in error  # the training objects are the same


def test_unmeasured_results_are_rejected(tree: Path) -> None:
    with pytest.raises(UserError, match=r"no rows of test/guessed; it has test/autodecoder, test/fitted"):
        compare(tree, ["base"], "test", "guessed")
    shutil.rmtree(tree / "metrics/me-base")
    with pytest.raises(UserError, match="base has not been measured yet"):
        compare(tree, ["base"], "test", "sampled")
    row = {"object": "chair", "split": "test", "source": "sampled", "psnr": 1.0}
    for rows, said in (
        ([row], "rows without object, split, source, view"),
        ([{"psnr": 1.0}], "metrics.jsonl is damag"),
    ):
        write_jsonl(tree / "metrics/me-base/metrics.jsonl", rows)
        with pytest.raises(UserError, match=said):
            compare(tree, ["base"], "test", "sampled")


def test_the_folder_of_a_run_is_the_run(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for base in ("base", str(tree / "ablations/base"), f"{tree}/ablations/../ablations/base/"):
        assert main(["compare", base, "fast_1%", "--results", str(tree), "--format", "csv"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]
    (tree.parent / "base").mkdir()
    assert main(["compare", str(tree.parent / "base"), "--results", str(tree)]) == 2


def test_all_formats_have_the_same_numbers(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for name in verb.FORMATS:
        assert main(["compare", "base", "fast_1%", "--results", str(tree), "--format", name]) == 0
        texts[name] = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    psnr = next(row for row in rows if (row["result"], row["metric"]) == ("fast_1%", "psnr"))
    assert [float(psnr[key]) for key in ("mean", "difference")] == pytest.approx([21.25, 1.5])
    assert [psnr[key] for key in ("low", "difference_low", "p", "n_objects", "n_seeds")] == ["", "", "", "2", "1"]
    assert (psnr["verdict"], psnr["about"]) == ("too few to say", "models")
    assert psnr["commit"] == "abc1234def"
    document = json.loads(texts["json"])
    assert document["results"][1]["metrics"]["psnr"]["difference"]["value"] == pytest.approx(1.5)
    assert document["options"] == {"unet.lr": [1e-5, 1e-4]}
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in texts["md"].splitlines()]
    expected = ["PSNR (dB) ↑", "19.75", "21.25", "+1.50 too few to say"]
    assert expected in lines
    assert r"fast\_1\%" in texts["tex"]
    assert r"+1.50 too few to say \\" in texts["tex"]
    assert texts["tex"].count(r"\begin{tabular}") == texts["tex"].count(r"\end{tabular}") == 3
    flat = " ".join(texts["rich"].split())
    assert all(cell in flat for cell in expected)
    assert set(verb.FORMATS) == set(FORMATS)


def test_digests_come_from_job_records(tree: Path) -> None:
    for name, sha in (("base", "a" * 64), ("fast_1%", "b" * 64)):
        record = {"job": "unet", "attempts": [], "outputs": {"pipeline/x": {"sha256": sha, "bytes": 1}}}
        write_json(tree / f"unet/un-{name}/jobs/unet.json", record)
    digests = [
        contender.digests for contender in compare(tree, ["base", "fast_1%", "base"], "test", "sampled").contenders
    ]
    assert set(digests[0]) == {"unet"}
    assert digests[0] == digests[2] != digests[1]
    text = FORMATS["md"](compare(tree, ["base"], "test", "sampled"))
    assert f"| unet files | {digests[0]['unet']} |" in text
    assert "| infer files | unknown |" in text


def test_comparisons_are_deterministic(tree: Path) -> None:
    first, second = (compare(tree, ["base", "fast_1%"], "test", "sampled") for _ in range(2))
    assert FORMATS["json"](first) == FORMATS["json"](second)
