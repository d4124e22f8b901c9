"""A YAML file with the line on which each of its values stands, so that errors can show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.spec_values import SpecError

Loc = Sequence[str | int]
"""A path into the file's tables and lists."""


@dataclass(frozen=True)
class YamlFile:
    """What a file says, and where."""

    path: str
    content: Any
    lines: tuple[str, ...]
    _root: yaml.Node | None

    def line_of(self, loc: Loc) -> int | None:
        """Return the line, from 1, of a value, or of the innermost table on the way to it that the file has."""
        node, line = self._root, None
        for part in loc:
            found = _child(node, part)
            if found is None:
                break
            at, node = found
            line = at.start_mark.line + 1
        return line

    def shown(self, loc: Loc) -> str:
        """Return that line as a message shows it, empty if the file has none."""
        line = self.line_of(loc)
        return "" if line is None else f"\n      line {line}: {self.lines[line - 1].strip()[:120]}"


def read_yaml(path: str | Path, expected: str) -> YamlFile:
    """Read a YAML file.

    Args:
        expected: What it should hold, for messages.

    Raises:
        SpecError: There is no such file, it is not text, or not YAML; shows the line.
    """
    file = Path(path)
    if not file.exists():
        raise SpecError(f"{path}: no such file; {expected}")
    if not file.is_file():
        raise SpecError(f"{path}: found a directory or a special file; {expected}")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as text ({error}); {expected}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: {_said(error, text)}; {expected}") from error
    return YamlFile(str(path), content, tuple(text.split("\n")), node)


def yaml_of(content: Any, path: str) -> YamlFile:
    """Return a table as if a file had said it; its lines are those that YAML would have."""
    try:
        text = yaml.safe_dump(_plain(content), sort_keys=False, default_flow_style=None)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: {error}; expected texts, numbers, lists and tables") from error
    return YamlFile(path, yaml.safe_load(text), tuple(text.split("\n")), yaml.compose(text, Loader=yaml.SafeLoader))


def _plain(content: Any) -> Any:
    """Return a table with its paths as texts and its tuples as lists."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return str(content) if isinstance(content, Path) else content


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return where an entry begins (of a table its key), and its value; None if there is no such entry."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _said(error: yaml.YAMLError, text: str) -> str:
    """Return what is wrong with a text that is not YAML, with its line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"not YAML: {error}"
    line = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
    if "\t" in line[: mark.column + 1]:
        why = "a tab stands where YAML takes spaces only; indent with spaces"
    else:
        why = str(getattr(error, "problem", error))
    return f"not YAML: {why}\n      line {mark.line + 1}: {line.replace(chr(9), '→   ')[:120]}\n   "
