"""One finished run of the tiny experiment, shared by the tests that only look at it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.servers import prefect_server
from tests.end_to_end.support import EXPERIMENT, palimpsest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep these tests in one process: they share a finished run, and each uses the whole machine.

    Here, because xdist reads the marks before any conftest can modify the collected items.
    """
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.xdist_group("end_to_end"))


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("tiny") / "store"
    done = palimpsest("run", str(EXPERIMENT), "--set", f"store={store}")
    (store / "stdout.txt").write_text(done.stdout)
    return store


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server that stays: the variables that lead to it.  Without it each command starts one of its own."""
    with prefect_server(tmp_path_factory.mktemp("prefect") / "home") as variables:
        yield variables
