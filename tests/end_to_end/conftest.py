"""One finished run of the tiny experiment, shared by the tests that only look at it."""

from pathlib import Path

import pytest
from filelock import FileLock

from tests.end_to_end.support import EXPERIMENT, palimpsest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give these tests time enough on a slow machine, too, and beside each other."""
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.timeout(900 * item.config.getoption("--kills")))


@pytest.fixture(scope="session")
def tiny_store(shared_folder: Path, server: dict[str, str]) -> Path:
    """The store of a run that nobody disturbed; the first test process to ask makes it, for all."""
    store = shared_folder / "tiny" / "store"
    with FileLock(shared_folder / "tiny.lock"):
        if not (store / "stdout.txt").exists():
            done = palimpsest("run", str(EXPERIMENT), "--set", f"store={store}", **server)
            (store / "stdout.txt").write_text(done.stdout)
    return store
