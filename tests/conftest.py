"""Options that name outside directories; without them the tests use what the repository holds."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.end_to_end.servers import prefect_server

# Test processes run side by side; matrices here are too small for threads to pay.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Keep what commands remember of files apart from the user's own; the test processes of a session share it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="palimpsest-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=None, help="directory of golden vectors for tests/parity")
    parser.addoption("--data", type=Path, default=None, help="directory of published data sets for tests/scores")
    parser.addoption("--kills", type=int, default=2, help="how often tests/end_to_end kills each role")
    parser.addoption("--soak-log", type=Path, default=None, help="file for what was killed when")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server that stays: the variables that lead to it.  Without it each command starts one of its own."""
    with prefect_server(tmp_path_factory.mktemp("prefect") / "home") as variables:
        yield variables
