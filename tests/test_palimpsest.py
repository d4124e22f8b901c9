"""The one module from which all of it is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import palimpsest

ROOT = Path(__file__).parents[1]


def test_it_has_what_it_names_and_nothing_else() -> None:
    assert set(dir(palimpsest)) == {*palimpsest.__all__, "__version__"}
    for name in palimpsest.__all__:
        assert getattr(palimpsest, name).__name__ == name
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", palimpsest.__version__)
    with pytest.raises(AttributeError, match="no attribute 'edti'"):
        _ = palimpsest.edti


@pytest.mark.parametrize(
    ("use", "absent"),
    [
        ("palimpsest.open", "torch, transformers, ray, prefect, editing"),
        ("palimpsest.edit", "ray, prefect, duckdb, pyarrow, storage, tasks, flows"),
        ("palimpsest.__version__", "torch, duckdb, ray, prefect, editing, storage, tasks, flows"),
    ],
)
def test_what_is_used_is_all_that_is_imported(use: str, absent: str) -> None:
    code = f"import sys, palimpsest; {use}; print([name for name in '{absent}'.split(', ') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_nobody_is_told_to_install_a_strangers_package() -> None:
    """``palimpsest`` on PyPI is another project."""
    pattern = re.compile(r"pip install[^\n`]*\bpalimpsest(?!_editing|-editing)\b(?!\.)")
    assert pattern.search("pip install palimpsest") and pattern.search("pip install 'palimpsest[s3]'"), (
        "it finds what it should"
    )
    files = [path for path in ROOT.rglob("*") if path.suffix in (".py", ".md", ".yaml", ".toml", ".jinja", ".ipynb")]
    own = [
        path
        for path in files
        if not any(part.startswith(".") or part == "results" for part in path.relative_to(ROOT).parts)
    ]
    assert len(own) > 300
    found = [path for path in own if path != Path(__file__) and pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []
