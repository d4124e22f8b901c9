"""What the documentation names exists, and what exists is named."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editing.hparams import editor_names
from flows.cli import app
from flows.listing import KINDS, listing
from storage.marts import public_marts

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_command_has_help_and_stands_in_the_readme() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    registered = [command for group in groups for command in group.registered_commands]
    commands = [command.name or command.callback.__name__.rstrip("_") for command in registered]
    assert {"plan", "run", "status", "query", "report", "checkout", "list", "doctor", "serve", "gc"} <= set(commands)
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| `"))
    for name in commands:
        assert re.search(rf"`(palimpsest )?{name}[ `]", rows), name
        shown = CliRunner().invoke(app, [name, "--help"])
        assert shown.exit_code == 0 and len(shown.output.splitlines()) > 5, name


def test_every_editor_is_described_with_its_source() -> None:
    page = (ROOT / "docs" / "editors.md").read_text()
    parts = dict(re.findall(r"^#{2,3} (\w+)\n(.*?)(?=^#|\Z)", page, flags=re.M | re.S))
    for name in editor_names():
        assert f"`{name}`" in page, f"{name} is missing in the table"
        assert len(parts[name]) > 80, name
        controls = ("no_op", "random_direction", "in_context", "ft", "ft_c")
        assert name in controls or "arXiv:" in parts[name], f"{name} has no source"


def test_every_kind_can_be_listed() -> None:
    for kind in KINDS:
        assert listing(kind), kind
    assert {row["editor"] for row in listing("editors")} == set(editor_names())
    assert {row["view"] for row in listing("views")} == set(public_marts())
    assert all(row["what"] for row in listing("views"))


def test_files_that_the_documents_name_exist() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(
            r"`((?:editing|tasks|flows|storage|tests|docs)/[a-z_0-9./-]+\.\w+)`(?!\n```)", document.read_text()
        ):  # a path above a block of code is a file that the page tells one to write
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def paragraphs(page: Path) -> list[str]:
    """Return a page's paragraphs and items; code and tables are none."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    found = [part for block in re.split(r"\n\s*\n", text) for part in re.split(r"\n(?=\s*(?:[-*]|\d+\.) |#)", block)]
    return [part for part in found if not part.lstrip().startswith(("|", "#"))]


PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_short_to_read(page: Path) -> None:
    """What is older than that stands in ``docs/log/``."""
    assert [part for part in paragraphs(page) if len(part.split()) > 80] == []
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    assert [line for line in prose.splitlines() if len(line) > 160 and not line.startswith("|")] == []


def test_findings_are_short() -> None:
    found = [part for part in paragraphs(ROOT / "docs" / "log.md") if part.startswith("- ")]
    assert len(found) > 30 and [part for part in found if len(part.split()) > 60] == []
