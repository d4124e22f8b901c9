"""The import rules of the house; imports inside functions count."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "flows": {"torch", "transformers", "ray", "editing"},
    "editing": {"prefect", "ray", "duckdb", "pyarrow", "datasets", "storage", "tasks", "flows", "pandas", "sklearn"},
    "storage": {"torch", "transformers", "ray", "prefect", "editing", "tasks", "flows"},
    "tasks": {"flows"},
}
ROOMS = {
    "tasks": [{"specs"}, {"data", "reports"}, {"benchmarks", "runs"}, {"units"}, {"workers"}, {"driver"}],
    "editing": [{"model"}, {"methods"}, {"measure", "editors"}, {"factworld"}],
}
"""Folders within a folder, in the order in which they build on each other: each imports what stands before it."""
ALLOWED_IN_EDITING = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "yaml", "editing"}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports are not used here"
            found.add(node.module)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_it_must_not(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports_of(path)
        if any(within(name, forbidden) for forbidden in FORBIDDEN[package])
    ]
    assert modules(package) and not wrong, wrong


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_rooms_import_only_what_stands_before_them(package: str) -> None:
    level = {room: number for number, rooms in enumerate(ROOMS[package]) for room in rooms}
    assert all((ROOT / package / room).is_dir() for room in level)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        if (mine := path.relative_to(ROOT / package).parts[0]) in level
        for name in imports_of(path)
        if within(name, package) and (other := name.split(".")[1]) in level and other != mine
        if level[other] >= level[mine]
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("package", ["flows", "tasks", "editing", "storage"])
def test_no_name_of_a_file_stands_twice_in_a_folder(package: str) -> None:
    names = [path.stem for path in modules(package) if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


def test_editing_needs_only_its_own_dependencies() -> None:
    import sys

    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("editing")
        for name in imports_of(path)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names and top not in ALLOWED_IN_EDITING
    ]
    assert not wrong, wrong


def test_only_the_family_table_looks_at_a_models_type() -> None:
    looked = [
        path.name for path in modules("editing") if "model_type" in path.read_text() and path.name != "families.py"
    ]
    assert looked == ["weights.py"], looked  # it names the type in an error message


def test_no_device_is_named_in_the_science() -> None:
    wrong = [str(path.relative_to(ROOT)) for path in modules("editing") if "cuda" in path.read_text()]
    assert not wrong, wrong


def test_the_rules_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    import torch.nn as nn\n    from ray.util import queue\n")
    assert {"torch.nn", "ray.util"} <= imports_of(bad)
    assert within("torch.nn", "torch") and not within("torchaudio", "torch")
