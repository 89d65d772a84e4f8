"""TensorBoard on ablation folders: the server's responses and the page in a browser."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, needs_chromium
from support.report_tree import build
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

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


@pytest.fixture(scope="module")
def address(logs: Path) -> Iterator[str]:
    """Address of a TensorBoard server on a free port."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            match = next(m for line in server.stderr if (m := re.search(r"at (http://[\d.]+:\d+)", line)))
            deadline = time.monotonic() + 60
            while set(ask(match[1], "runs")) != RUNS:  # it loads the logs in the background
                assert time.monotonic() < deadline, ask(match[1], "runs")
                time.sleep(0.2)
            yield match[1]
        finally:
            server.terminate()


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
