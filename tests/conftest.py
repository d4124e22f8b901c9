"""Options that name outside directories; without them the tests use what the repository holds."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=None, help="directory of golden vectors for tests/parity")
