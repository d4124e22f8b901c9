"""What commands remember of files is what the files hold, and nothing is lost where it cannot be kept."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.digests import digest_of_file
from tasks import cache
from tasks.cache import cache_folder, digest_of_settled_file, remembered


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def settle(path: Path) -> None:
    """Wait until a file has not been touched for so long that its clocks tell it from every later state."""
    while time.time() - path.stat().st_ctime < cache._SETTLED_S + 0.1:
        time.sleep(0.1)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files that are read from now on."""
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return digest_of_file(path)

    monkeypatch.setattr(cache, "digest_of_file", reading)
    return read


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "weights", counted(monkeypatch)
    path.write_bytes(b"0" * 1000)
    digest_of_settled_file(path)
    assert digest_of_settled_file(path) == digest_of_file(path) and len(read) == 2, (
        "too young to be known by its clocks"
    )
    settle(path)
    assert {digest_of_settled_file(path) for _ in range(3)} == {digest_of_file(path)} and len(read) == 3


def test_a_changed_byte_is_seen_though_size_and_time_are_put_back(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"0" * 1000)
    settle(path)
    before, stat = digest_of_settled_file(path), path.stat()
    with path.open("r+b") as stream:
        stream.seek(500)
        stream.write(b"1")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    settle(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert digest_of_settled_file(path) == digest_of_file(path) != before


def test_another_file_in_its_place_is_read(tmp_path: Path) -> None:
    path, other = tmp_path / "weights", tmp_path / "other"
    path.write_bytes(b"0" * 1000)
    other.write_bytes(b"1" * 1000)
    settle(other)
    before = digest_of_settled_file(path)
    stat = path.stat()
    other.replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    settle(path)
    assert digest_of_settled_file(path) == digest_of_file(path) != before


def test_answers_are_remembered_by_what_they_are_made_of() -> None:
    made: list[int] = []

    def answer(number: int) -> object:
        made.append(number)
        return {"answer": [number, None]}

    for number in (1, 2, 1, 2):
        assert remembered("numbers", {"of": number}, lambda number=number: answer(number)) == {"answer": [number, None]}
    assert made == [1, 2]
    assert remembered("letters", {"of": 1}, lambda: "another kind") == "another kind"


def test_what_is_raised_is_not_remembered() -> None:
    def fails() -> None:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            remembered("numbers", 1, fails)
    assert remembered("numbers", 1, lambda: 2) == 2


def test_other_code_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered("numbers", 1, lambda: 1) == 1
    monkeypatch.setattr(cache, "_code", lambda: "changed")
    assert remembered("numbers", 1, lambda: 2) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_spoilt_entry_is_made_again(content: str) -> None:
    remembered("numbers", 1, lambda: 1)
    (entry,) = (cache_folder() / "numbers").iterdir()
    entry.write_text(content)
    assert remembered("numbers", 1, lambda: 2) == 2


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [remembered("numbers", 1, lambda i=i: i) for i in range(2)] == [0, 1]


def test_the_oldest_entries_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_KEPT", 10)
    for number in range(25):
        remembered("numbers", number, lambda number=number: number)
    kept = list((cache_folder() / "numbers").iterdir())
    assert len(kept) <= 11 and remembered("numbers", 24, lambda: "made again") == 24


HEAVY = ("torch", "ray", "prefect", "transformers")


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_what_only_plans_or_names_units_loads_no_heavy_library() -> None:
    assert loaded_by("import flows.plan, flows.forecast, flows.cli") == set()
    assert loaded_by("from tasks.units.unit import kinds\nassert len(kinds()) > 10") == set()
    assert loaded_by("import tasks.driver.stages, tasks.driver.session, tasks.driver.watching") == set()
    assert "torch" in loaded_by("import tasks.workers.worker"), "the check can fail"


PLAN = """
from flows.forecast import forecast
from flows.inputs import read_inputs
from flows.plan import plan_experiment
from flows.experiment_file import load_experiment
experiment = load_experiment("flows/experiments/demo.yaml", {"store": "/nowhere"})
plan = plan_experiment(read_inputs(experiment))
rows, notes = forecast(plan)
"""


@pytest.mark.slow
def test_a_plan_of_a_known_checkpoint_loads_no_heavy_library() -> None:
    assert {"torch", "transformers"} <= loaded_by(PLAN), "the first looks at the checkpoint"
    assert loaded_by(PLAN) == set()
