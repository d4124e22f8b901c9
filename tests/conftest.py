"""Options that name outside directories; without them the tests use what the repository holds."""

from pathlib import Path

import pytest
import torch

# Test processes run side by side; matrices here are too small for threads to pay.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=None, help="directory of golden vectors for tests/parity")
    parser.addoption("--data", type=Path, default=None, help="directory of published data sets for tests/scores")
