"""TensorBoard on ablation folders: the server's responses and the page in a browser."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, needs_chromium, open_page
from support.report_tree import build
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from z1g.core.files import read_json, write_json
from z1g.stages import ablation

pytestmark = [pytest.mark.browser, needs_chromium]
RUNS = {f"{name}/{part}" for name in ("base", "fast") for part in ("stages/autodecoder/tb", "stages/unet/tb", "tb")}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    specs = {
        name: {"seed": i, "stage1": "s1", "gain": i, "config": {"unet": {"lr": 10.0**-i}}}
        for i, name in enumerate(("base", "fast"))
    }
    build(root, specs)
    for stage in ("autodecoder/s1", "unet/un-base", "unet/un-fast"):
        writer = EventFileWriter(str(root / stage / "tb"))
        loss = Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])
        writer.add_event(Event(wall_time=1.0, step=1, summary=loss))
        writer.close()
    for name in specs:
        ablation.run(root, name)
    return root / "ablations"


@contextmanager
def serving(logs: Path, complete: Callable[[set[str]], bool]) -> Iterator[str]:
    """Address of a TensorBoard server on a free port, after its runs are complete."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            match = next(m for line in server.stderr if (m := re.search(r"at (http://[\d.]+:\d+)", line)))
            deadline = time.monotonic() + 60
            while not complete(set(ask(match[1], "runs"))):  # it loads the logs in the background
                assert time.monotonic() < deadline, ask(match[1], "runs")
                time.sleep(0.2)
            yield match[1]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def address(logs: Path) -> Iterator[str]:
    with serving(logs, lambda runs: runs == RUNS) as found:
        yield found


def ask(address: str, what: str, **body: Any) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{address}/data/{what}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_hparams_view_has_a_line_for_each_ablation(address: str) -> None:
    experiment = ask(address, "plugin/hparams/experiment", experimentName="")
    assert {info["name"] for info in experiment["hparamInfos"] if info["differs"]} == {"unet.lr"}
    states = [f"STATUS_{state}" for state in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    request = {"experimentName": "", "allowedStatuses": states, "colParams": [], "startIndex": 0, "sliceSize": 9}
    groups = ask(address, "plugin/hparams/session_groups", **request)["sessionGroups"]
    lines = {
        group["name"]: (group["hparams"]["unet.lr"], {v["name"]["tag"]: v["value"] for v in group["metricValues"]})
        for group in groups
    }
    assert set(lines) == {"base", "fast"}
    assert lines["base"][0] == 1.0
    assert lines["fast"][0] == pytest.approx(0.1)
    assert lines["fast"][1]["test/psnr"] == pytest.approx(20.75)
    assert lines["fast"][1]["test/chamfer"] == pytest.approx(0.2 - 21 / 200 + 0.0005)


def test_the_page_lists_the_ablations_by_name(address: str, tmp_path: Path) -> None:
    flags = [
        "--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--virtual-time-budget=15000",
        f"--user-data-dir={tmp_path / 'web'}",
    ]  # fmt: skip
    command = [str(CHROMIUM), *flags, "--dump-dom", f"{address}/#timeseries"]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    listed = set(re.findall(r"(?:base|fast)/(?:stages/\w+/)?tb", page))
    assert listed == RUNS


SHADOWS = """(() => {
    const texts = [];
    const walk = (root) => root.querySelectorAll("*").forEach((node) => {
        if (node.shadowRoot) walk(node.shadowRoot);
        for (const child of node.childNodes)
            if (child.nodeType === Node.TEXT_NODE && child.data.trim()) texts.push(child.data.trim());
    });
    walk(document);
    return texts;
})()"""
"""Texts of the page, also those in shadow roots, of which TensorBoard's dashboards consist."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two points of a sweep, each with two replicates, whose PSNR differs by their seed."""
    root = tmp_path_factory.mktemp("swept")
    specs, plans = {}, {}
    for lr in (1e-4, 3e-4):
        for seed in (0, 1):
            arm = f"lr@lr={lr:g}"
            config = {"unet": {"train": {"optimizer": {"lr": lr}, "seed": seed}}}
            specs[f"{arm}@seed={seed}"] = {"seed": seed, "stage1": "s1", "gain": 1e4 * lr + seed, "config": config}
            plans[f"{arm}@seed={seed}"] = {"arm": arm, "point": {"unet.train.optimizer.lr": lr}, "seed": seed}
    build(root, specs)
    for name, about in plans.items():
        file = root / "ablations" / name / "plan.json"
        write_json(file, read_json(file) | about)
    for name in specs:
        ablation.run(root, name)
    return root / "ablations"


def test_the_hparams_tab_has_a_line_for_each_point_of_a_sweep(swept: Path, tmp_path: Path) -> None:
    with serving(swept, lambda runs: len(runs) == 4) as address:
        states = [f"STATUS_{state}" for state in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        request = {"experimentName": "", "allowedStatuses": states, "colParams": [], "startIndex": 0, "sliceSize": 9}
        groups = ask(address, "plugin/hparams/session_groups", **request)["sessionGroups"]
        assert {group["name"]: len(group["sessions"]) for group in groups} == {"lr@lr=0.0001": 2, "lr@lr=0.0003": 2}
        found = {
            group["hparams"]["unet.train.optimizer.lr"]: value["value"]
            for group in groups
            for value in group["metricValues"]
            if value["name"]["tag"] == "test/psnr"
        }
        # 19.75 dB and the gain, which is the mean of both seeds: 1.5 and 3.5.
        assert sorted(found) == pytest.approx([1e-4, 3e-4])
        assert [found[lr] for lr in sorted(found)] == pytest.approx([21.25, 23.25])
        assert not any("seed" in name for group in groups for name in group["hparams"])
        with open_page(f"{address}/#hparams", tmp_path, (1600, 1000)) as page:
            wanted = {"unet.train.optimizer.lr", "test/psnr", "lr@lr=0.0001", "lr@lr=0.0003"}
            page.until_true(lambda: wanted <= set(page.evaluate(SHADOWS)), f"{wanted} on the page")
