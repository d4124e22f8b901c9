"""Finished runs that nobody disturbed, shared by the tests that only look at them."""

from pathlib import Path

import pytest
from filelock import FileLock

from tests.end_to_end.support import CHAINS, EXPERIMENT, palimpsest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give these tests time enough on a slow machine, too, and beside each other."""
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.timeout(900 * (1 + item.config.getoption("--kills"))))


@pytest.fixture(scope="session")
def tiny_store(shared_folder: Path, server: dict[str, str]) -> Path:
    """The store of every stage."""
    return _finished(EXPERIMENT, shared_folder, server)


@pytest.fixture(scope="session")
def chains_store(shared_folder: Path, server: dict[str, str]) -> Path:
    """The store of chains of segments."""
    return _finished(CHAINS, shared_folder, server)


def _finished(experiment: Path, shared_folder: Path, server: dict[str, str]) -> Path:
    """Return the store of a run; the first test process to ask makes it, for all."""
    store = shared_folder / experiment.stem / "store"
    with FileLock(shared_folder / f"{experiment.stem}.lock"):
        if not (store / "stdout.txt").exists():
            done = palimpsest("run", str(experiment), "--set", f"store={store}", **server)
            (store / "stdout.txt").write_text(done.stdout)
    return store
