"""The option that writes figures."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where `tests/golden` is asked for by name."""
    parser.addoption("--write-golden", action="store_true", help="write figures of stages whose version was raised")
