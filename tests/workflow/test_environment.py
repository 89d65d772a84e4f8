"""The environment's installer: uv is told what pip is told, and pip takes its place; the wheel holds shipped models."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

SCRIPT = ROOT / "workflow/environment.py"


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from environment import uv_variables

    yield uv_variables
    sys.modules.pop("environment")


def test_uv_is_told_what_pip_is_told(variables) -> None:
    listed = (
        ":env:.cert='/env/cert.pem'\n"
        "global.cert='/file/cert.pem'\n"
        "global.disable-pip-version-check='1'\n"
        "global.extra-index-url='https://one/simple\\nhttps://two/simple'\n"
        "global.index-url='https://main/simple'\n"
        "install.find-links='/wheels /more'\n"
    )
    assert variables(listed) == {
        "SSL_CERT_FILE": "/env/cert.pem",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_DEFAULT_INDEX": "https://main/simple",
        "UV_FIND_LINKS": "/wheels,/more",
    }
    assert variables("") == {}


@pytest.mark.parametrize(
    ("uv", "calls"),
    [("exit 0", ["pip uv", "uv"]), ("echo no route >&2; exit 2", ["pip uv", "uv", "pip lock"]), (None, ["pip uv", "pip lock"])],
)
def test_pip_takes_the_place_of_uv(tmp_path: Path, uv: str | None, calls: list[str]) -> None:
    """An environment whose python and uv note how they are called."""
    tools, log = tmp_path / "bin", tmp_path / "log"
    tools.mkdir()
    fails = "" if uv else "exit 1"
    (tools / "python").write_text(
        f'#!/bin/sh\ncase "$*" in *config*) ;; *uv*) echo pip uv >>{log}; {fails} ;; *) echo pip lock >>{log} ;; esac\n'
    )
    (tools / "uv").write_text(f"#!/bin/sh\necho uv >>{log}\n{uv}\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, "lock.txt"], capture_output=True, text=True, check=True)
    assert log.read_text().splitlines() == calls
    assert done.stdout == ""
    assert ("no route" in done.stderr) == ("no route" in (uv or ""))


@pytest.mark.slow
def test_the_wheel_holds_the_models_of_the_package(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "z1g/__init__.py", "z1g/inference/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    model = tmp_path / "z1g/inference/models_of_the_package/base"
    names = ["README.md", "model.json", "pipeline/stage1.json", "pipeline/heads.safetensors", "pipeline/vae/config.json",
             "pipeline/vae/diffusion_pytorch_model.safetensors"]  # fmt: skip
    for name in names:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    words = [sys.executable, "-c", build, str(tmp_path / "out")]
    subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, check=True)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if "models_of_the_package" in name}
    assert held == {f"z1g/inference/models_of_the_package/base/{name}" for name in names}
