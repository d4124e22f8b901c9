"""No test passes without having asserted something."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def own_nodes(function: ast.FunctionDef) -> list[ast.AST]:
    """Return a function's nodes without those of functions in it."""
    inner = {
        node
        for nested in ast.walk(function)
        if nested is not function and isinstance(nested, ast.FunctionDef | ast.Lambda)
        for node in ast.walk(nested)
    }
    return [node for node in ast.walk(function) if node not in inner]


def is_assertion(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    called = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
    return called == "raises" or called.startswith(("check", "assert_"))


def problem(function: ast.FunctionDef) -> str | None:
    """Return why a test could pass without an assertion."""
    nodes = own_nodes(function)
    asserted = [node.lineno for node in nodes if is_assertion(node)]  # type: ignore[attr-defined]
    if not asserted:
        return "asserts nothing"
    early = [node.lineno for node in nodes if isinstance(node, ast.Return) and node.lineno < min(asserted)]
    return f"may return at line {early[0]} before it asserts anything" if early else None


def test_every_test_asserts_something() -> None:
    wrong = [
        f"{path.relative_to(TESTS)}::{node.name} {why}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and (why := problem(node))
    ]
    assert wrong == []


def test_the_rule_can_fail() -> None:
    def of(code: str) -> str | None:
        (function,) = ast.parse(code).body
        assert isinstance(function, ast.FunctionDef)
        return problem(function)

    assert (
        of("def test_a(x):\n    if x:\n        return\n    assert x")
        == "may return at line 3 before it asserts anything"
    )
    assert of("def test_a(x):\n    def inner():\n        assert x\n    inner()") == "asserts nothing"
    assert of("def test_a(x):\n    with pytest.raises(ValueError):\n        x()\n    return") is None
