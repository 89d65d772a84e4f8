"""The status as text, JSON and page, of made-up results."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.browser import Page, needs_chromium, open_page
from support.builders import plan, stage_path
from support.status_tree import write_beat, write_log, write_output, write_record

from z1g.core.stages import STAGE_NAMES
from z1g.jobs.budget import Budget
from z1g.jobs.squeue import SlurmJob
from z1g.plan.plan import Plan
from z1g.plan.status import Evidence, Status, nodes_on_disk, status
from z1g.report.status import WIDTH, as_json, duration, failures, rows, sentences, status_page, text

LONG = "z1g codes: error: " + "a long line that says <b>what</b> went wrong " * 5


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Renders are done, a fit runs and one waits in SLURM's queue, codes failed, stage 2 trains."""
    resources = {name: {"gpus": 0} for name in STAGE_NAMES} | {"fit": {"gpus": 1}}
    planned = plan(tmp_path_factory.mktemp("busy"), resources=resources)
    for chunk in range(2):
        write_output(stage_path(planned, "ingest"), chunk)
    write_output(stage_path(planned, "fit"), 0)
    write_record(stage_path(planned, "fit"), "chunk-00000", {"seconds": 720.0, "gpus": ["GPU"]})
    write_record(stage_path(planned, "codes"), "codes", {"seconds": 5.0, "finished": False})
    write_log(stage_path(planned, "codes"), "codes", LONG)
    figures = {"gradient_norm": 1.5, "alpha": 0.02, "rgb": 0.125, "splat": 3.0, "loss": 0.25}
    progress = {"task": "autodecoder", "step": 431, "of": 1000, "rate": 2.0, "figures": figures}
    write_beat(stage_path(planned, "autodecoder"), "autodecoder", progress=progress)
    Budget(20.0, [f"fit/{stage_path(planned, 'fit').name}"], {"too_dear": 9.25}).write(planned.results)
    return planned


@pytest.fixture
def found(busy: Plan) -> Status:
    queue = {("fit", stage_path(busy, "fit").name, 1): SlurmJob("42", "PENDING", "Resources")}
    return status(busy.results, nodes_on_disk(busy.results), Evidence(now=time.time(), queue=queue))


def test_the_table_has_a_line_for_each_stage(found: Status) -> None:
    table = {row.stage: row for row in rows(found)}
    assert list(table) == list(STAGE_NAMES)
    assert (table["ingest"].state, table["ingest"].jobs, table["ingest"].what) == ("done", "2/2", "")
    assert (table["fit"].state, table["fit"].jobs, table["fit"].gpu_hours) == ("queued", "1/2", "0.20")
    assert table["fit"].what == "SLURM 42: Resources"
    assert table["autodecoder"].what == "431/1000, 2/s; loss 0.25, gradient_norm 1.5, alpha 0.02, rgb 0.125"
    assert table["autodecoder"].left == "5 min"
    assert table["unet"].what == "waits for codes, which did not end well"


def test_text_fits_in_a_hundred_columns_and_loses_nothing(found: Status) -> None:
    printed = text(found)
    assert max(map(len, printed.splitlines())) <= WIDTH == 100
    assert "\x1b" not in printed
    assert LONG.strip() in " ".join(printed.split("codes.log:")[1].split())
    for sentence in sentences(found):
        assert sentence in " ".join(printed.split())


def test_the_summary(found: Status) -> None:
    counts, hours, budget, *_, snakemake = sentences(found)
    assert counts == "7 stages: 3 waiting, 1 queued, 1 running, 1 failed, 1 done."
    assert hours == "GPU hours: 0.20 so far, 0.20 to go."
    assert budget == "Budget: 20 GPU hours; left out: too_dear (+9.25)."
    assert snakemake == "Snakemake does not run."
    (failed,) = failures(found)
    assert failed.startswith("codes/")
    assert failed.endswith(f"/logs/codes.log: {LONG.strip()}")


def test_json_has_what_the_table_has(found: Status, busy: Plan) -> None:
    about: dict[str, Any] = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert about["counts"] == {"done": 1, "queued": 1, "running": 1, "failed": 1, "waiting": 3}
    assert about["gpu_hours"] == pytest.approx(0.2)
    assert about["budget"]["gpu_hours"] == 20
    stages = {stage["stage"]: stage for stage in about["stages"]}
    (job,) = stages["autodecoder"]["jobs"]
    assert (job["step"], job["of"], job["rate"], job["figures"]["splat"]) == (431, 1000, 2.0, 3.0)
    assert job["seconds_left"] == pytest.approx(284.5)
    assert [job["slurm"] for job in stages["fit"]["jobs"]] == ["42"]
    assert stages["fit"]["runs"] == ["micro"]
    assert not about["finished"]


def test_names_of_runs_where_there_are_several(busy: Plan, tmp_path: Path) -> None:
    nodes = [node for node in nodes_on_disk(busy.results) if node.stage == "unet"]
    seen = Evidence(now=time.time())
    other = type(nodes[0])("unet", "0123456789", {}, 1, runs=("other@lr=1e-4",))
    assert [row.what for row in rows(status(busy.results, [*nodes, other], seen))] == ["micro", "other@lr=1e-4"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0, "0 s"), (99, "99 s"), (100, "2 min"), (3570, "1 h 00"), (9000, "2 h 30"), (200_000, "2.3 d")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_page_names_nothing_outside_of_it(found: Status) -> None:
    page = status_page(found, 7)
    assert '<meta http-equiv="refresh" content="7">' in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<b>what</b>" not in page
    assert "refresh" not in status_page(found, None)


@pytest.mark.browser
@needs_chromium
def test_the_page_reloads_itself(found: Status, tmp_path: Path) -> None:
    file = tmp_path / "status.html"
    file.write_text(status_page(found, 1))
    with open_page(file.as_uri(), tmp_path) as page:
        wait_for(page, "431/1000")
        assert page.errors == []
        file.write_text(status_page(found, 1).replace("431/1000", "500/1000"))
        wait_for(page, "500/1000")


def wait_for(page: Page, words: str) -> None:
    """Wait until a page that reloads itself has some words; meanwhile it may have no body, or not answer."""
    end = time.monotonic() + 60
    shown = ""
    while words not in shown:
        assert time.monotonic() < end, shown
        with contextlib.suppress(AssertionError):
            shown = page.evaluate("document.body?.innerText ?? ''")
