"""The pages on adding a benchmark and a data set, followed to the letter."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def follow(page: str, folder: Path, server: dict[str, str]) -> list[str]:
    """Write every file that the page shows, give every command that it gives, and return what they print."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for name, content in re.findall(r"^`([\w/.-]+\.\w+)`\n```\w+\n(.*?)^```$", text, flags=re.M | re.S):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    shown = []
    for block in re.findall(r"^```\n(palimpsest .*?)^```$", text, flags=re.M | re.S):
        for line in block.splitlines():
            arguments = [sys.executable, "-m", "flows.cli", *shlex.split(line)[1:]]
            environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "200"}
            environment |= server | {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
            done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            shown.append(done.stdout)
    return shown


@pytest.mark.minutes
def test_add_a_benchmark(server: dict[str, str], tmp_path: Path) -> None:
    _, shown = follow("add-a-benchmark", tmp_path, server)
    rows = [line.split() for line in shown.splitlines()[1:]]
    assert [row[:3] for row in rows] == [["animals", "0", "4"], ["animals", "4", "4"]], "before and after the edits"
    assert all(row[-2:] == ["2", "train"] for row in rows), "two shots, of the training examples"


@pytest.mark.minutes
def test_add_a_data_set(server: dict[str, str], tmp_path: Path) -> None:
    lint, _, probes, refused = follow("add-a-data-set", tmp_path, server)
    assert re.search(r"subject not in prompt +yes +1", lint) and "facts that can be edited: 2" in lint
    assert re.search(r"c1 +neighborhood +The capital of Peru is +Lima +near", probes)
    assert re.search(r"c3 +paraphrase +Egypt's capital is +Cairo +also: written by hand", probes)
    assert "c2" in refused and "'Chile' is not in its prompt" in refused
