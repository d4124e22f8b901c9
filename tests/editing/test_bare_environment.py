"""The five-line library example runs where only editing's dependencies are installed."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "PyYAML")
EXAMPLE = """
from editing import edit, load
from editing.factworld.world import World
world = World(n_known=300)
requests, some_strings = world.requests()[:3], world.corpus(100)
lm = load("factworld-tiny")
before = lm.answer_logprobs([r.prompt for r in requests], [r.target_new for r in requests])
edit(lm, requests, editor="memit", layers=[0, 1], texts=some_strings)
after = lm.answer_logprobs([r.prompt for r in requests], [r.target_new for r in requests])
print(sum(s.correct for s in before), sum(s.correct for s in after))
"""
FOREIGN = ("prefect", "ray", "duckdb", "pyarrow", "datasets", "pandas", "sklearn")


def closure(names: tuple[str, ...]) -> set[str]:
    """Return the distributions that the named ones need, extras left out."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        todo += [re.split(r"[ ;<>=!~\\[(]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need]
    return found


def build_environment(folder: Path) -> None:
    """Link the files of those distributions, and the package, into a folder of their own."""
    for name in closure(NEEDED):
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            source, target = (
                Path(str(file.locate())).parents[len(file.parts) - 2] if len(file.parts) > 1 else None,
                folder / top,
            )
            source = source if source is not None else Path(str(file.locate()))
            if top != ".." and not target.exists() and source.exists():
                target.symlink_to(source)
    (folder / "editing").symlink_to(ROOT / "editing")


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    # -I: no user site, no PYTHON* variables; -S: no site-packages at all.
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd="/",
    )


@pytest.mark.slow
def test_five_lines_in_a_bare_environment(tmp_path: Path) -> None:
    build_environment(tmp_path)
    for name in FOREIGN:
        assert "ModuleNotFoundError" in run(f"import {name}", tmp_path).stderr, f"{name} is not in this environment"
    done = run(EXAMPLE, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    right_before, right_after = map(int, done.stdout.split()[-2:])
    assert right_before == 0 and right_after >= 2


@pytest.mark.minutes
def test_benchmarks_in_a_bare_environment(tmp_path: Path) -> None:
    """They are for GPU machines that have nothing but torch and transformers; how fast a row is does not matter here."""
    build_environment(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    out = tmp_path / "bench.json"
    code = f"""
import runpy
import tests.bench.cases as cases
cases.D_IN, cases.D = 256, 64
sys.argv = ["bench", "solve_64", "--out", {str(out)!r}]
runpy.run_module("tests.bench", run_name="__main__")
"""
    done = run(code, tmp_path)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    (row,) = json.loads(out.read_text())
    assert row["name"] == "solve_64" and row["error"] < 1e-9 and f"{row['ratio']:.1f}x" in done.stdout
