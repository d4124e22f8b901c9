"""One finished run of the tiny experiment, shared by the tests that only look at it."""

from pathlib import Path

import pytest

from tests.end_to_end.support import EXPERIMENT, palimpsest


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("tiny") / "store"
    done = palimpsest("run", str(EXPERIMENT), "--set", f"store={store}")
    (store / "stdout.txt").write_text(done.stdout)
    return store
