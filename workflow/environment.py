"""Install the packages of a lock file into an environment, for `make env`: with uv, or with pip where uv does not work.

uv downloads, unpacks and copies side by side, so that the environment takes a fraction of pip's time. It reads none of
pip's configuration, so what that says about indexes is passed on. Only Python's own modules are used.

    python workflow/environment.py .venv requirements.lock
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

UV = "uv>=0.9,<1"
QUIET = ("-qq", "--disable-pip-version-check")
PASSED_ON = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
"""Variables of uv by options of pip."""


def uv_variables(pip_config: str) -> dict[str, str]:
    """Variables that tell uv what pip is told. pip_config: output of `pip config list`."""
    found: dict[str, str] = {}
    # As for pip, the environment comes before files.
    for line in sorted(pip_config.splitlines(), key=lambda line: line.startswith(":env:")):
        key, separator, value = line.partition("=")
        variable = PASSED_ON.get(key.rpartition(".")[2])
        if not separator or variable is None:
            continue
        words = str(ast.literal_eval(value)).split()
        # uv separates links by commas and indexes by spaces.
        found[variable] = ("," if variable == "UV_FIND_LINKS" else " ").join(words)
    return found


def install(environment: Path, lock: Path) -> None:
    """Install the packages of `lock`. Raises CalledProcessError if pip fails."""
    python = str(environment / "bin" / "python")
    pip = [python, "-m", "pip"]
    if not _with_uv(environment, python, pip, lock):
        # The lock file has all packages, so that pip need not look for what they depend on.
        subprocess.run([*pip, "install", *QUIET, "--no-deps", "--requirement", str(lock)], check=True)


def _with_uv(environment: Path, python: str, pip: list[str], lock: Path) -> bool:
    """Whether uv could be installed, and could install everything."""
    if subprocess.run([*pip, "install", *QUIET, UV], capture_output=True).returncode:
        return False
    config = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    variables = {
        **uv_variables(config),
        # As pip: the best version of all indexes, not what the first one has.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        **os.environ,
    }
    words = ["pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--python", python]
    done = subprocess.run(
        [str(environment / "bin" / "uv"), *words, "--requirement", str(lock)],
        env=variables, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says no reason"])[-1]
        sys.stderr.write(f"uv does not work here ({reason}); pip does the same in some minutes\n")
    return done.returncode == 0


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]))
