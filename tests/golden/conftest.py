"""The option `--write-golden`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option. Pytest knows it if `tests/golden` is on its command line."""
    parser.addoption("--write-golden", action="store_true", help="write figures of stages whose version was raised")
