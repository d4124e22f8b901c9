"""One finished run of the tiny experiment, shared by the tests that only look at it."""

from pathlib import Path

import pytest

from tests.end_to_end.support import EXPERIMENT, palimpsest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep these tests in one process: they share a finished run, and each uses the whole machine; but for those that
    mostly wait, which name a group of their own.  They have time enough on a slow machine, too.

    Here, because xdist reads the marks before any conftest can modify the collected items.
    """
    if Path(__file__).parent not in item.path.parents:
        return
    item.add_marker(pytest.mark.timeout(900 * item.config.getoption("--kills")))
    if not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group("end_to_end"))


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("tiny") / "store"
    done = palimpsest("run", str(EXPERIMENT), "--set", f"store={store}")
    (store / "stdout.txt").write_text(done.stdout)
    return store
