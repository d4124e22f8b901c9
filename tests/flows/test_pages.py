"""The pages on adding an editor, a family and a score, followed to the letter in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BORDER = "-- end of a page's tests --"
PAGES = {"add-an-editor": 40, "add-a-family": 40, "add-a-score": 30}
"""How many tests the command of each page runs, at least."""
PACKAGES = ("editing", "tasks", "storage", "flows", "tests")


def copy_project(to: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def follow(page: Path, project: Path) -> str:
    """Write every file that the page shows, make every addition that it asks for, and return the command it gives."""
    text = page.read_text()
    for path, content in re.findall(r"^`([\w/]+\.\w+)`\n```\w+\n(.*?)^```$", text, flags=re.M | re.S):
        assert not (project / path).exists(), f"{path} is there already"
        (project / path).write_text(content)
    for name, path, lines in re.findall(r"^Add to `(\w+)` in `([\w/.]+)`\n```python\n(.*?)^```$", text, re.M | re.S):
        file = project / path
        opened = re.search(rf"^{name}\b[^\n]*= \{{\n", file.read_text(), flags=re.M)
        assert opened, f"{path} has no table {name}"
        file.write_text(file.read_text()[: opened.end()] + lines + file.read_text()[opened.end() :])
    (command,) = re.findall(r"^```\n(pytest .*?)\n```$", text, flags=re.M)
    return str(command)


def run(commands: list[str], project: Path) -> list[str]:
    """Give the commands in one process, which imports what they share once; return what each prints."""
    program = f"""
import sys, pytest
for command in {commands!r}:
    code = pytest.main([*command.split()[1:], "-p", "no:cacheprovider", "-rN"])
    print("{BORDER}", flush=True)
    if code:
        sys.exit(code)
"""
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout.split(BORDER)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the tests of each page print, in a copy that holds what all of them add."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    commands = [follow(ROOT / "docs" / f"{page}.md", project) for page in PAGES]
    return dict(zip(PAGES, run(commands, project), strict=False))


@pytest.mark.minutes
@pytest.mark.xdist_group("pages")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_it_stands(page: str, shown: dict[str, str]) -> None:
    counted = re.search(r"(\d+) passed", shown[page])
    assert counted and int(counted[1]) >= PAGES[page], shown[page][-2000:]
