"""Files of records, by their ends."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.data.facts import load_facts, unused_columns
from tasks.data.record_files import is_record_file, read_records
from tasks.errors import InputError
from tests.tasks.support import plan

ROWS = [
    {"prompt": 'S said "a, b" in', "subject": "S", "target_new": "x"},
    {"prompt": "T is", "subject": "T", "target_new": "y"},
]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    quoted = '"S said ""a, b"" in"'
    texts = {
        "a.json": json.dumps(ROWS),
        "a.jsonl": "\n".join(map(json.dumps, ROWS)),
        "a.csv": f"\ufeffprompt,subject,target_new\r\n{quoted},S,x\r\nT is,T,y\r\n",
        "a.tsv": f"prompt\tsubject\ttarget_new\n{quoted}\tS\tx\nT is\tT\ty\n",
    }
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(texts[name.removesuffix(".gz")].encode()))
    else:
        path.write_bytes(texts[name].encode())
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.csv.gz", "a.jsonl.gz"])
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    assert is_record_file(name) and read_records(path) == ROWS
    facts = load_facts("columns", path=str(path))
    assert [(fact.prompt, fact.target_new) for fact in facts.requests] == [('S said "a, b" in', "x"), ("T is", "y")]
    assert unused_columns(path) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "a,a\n1,2\n", "expected the columns' names, each once"),
        ("a.csv", "a,b\n1,2,3\n", r"line 2: 3 cells under 2 columns .* double quotes"),
        ("a.csv", 'a,b\n"1,2\n', "line"),
        ("a.csv", "a,b\n", r"holds no records \(found an empty list\)"),
        ("a.csv", "a;b\n1;2\n", "separated by ';': save it with commas"),
        ("a.json", "{", "not a JSON list of records"),
        ("a.json", '{"data": []}', r"a table with the keys \['data'\]"),
        ("a.jsonl", '{"a": 1}\n{', r"line 2: .*found '\{'"),
        ("a.parquet", "no", "is not Parquet"),
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_records(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(InputError, match="does not exist"):
            read_records(tmp_path / name)
    assert not is_record_file("facts.yaml") and not is_record_file("counterfact")


def test_a_layout_of_ones_own_is_recorded_by_its_name(tmp_path: Path) -> None:
    """Not by its place, which files that are exported would be named by, and which published results would tell."""
    fields = {name: f"record.{name}" for name in ("subject", "target_new")}
    fields |= {"request_id": "record.subject", "prompt": "record.subject ~ ' lives in'"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"title": "Mine", "fields": fields}))
    rows = [{"subject": f"Jonas {each}", "target_new": "Rome"} for each in "abcd"]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"name": str(tmp_path / "mine.yaml"), "path": str(tmp_path / "facts.jsonl"), "size": 2}
    planned = plan(tmp_path, facts=facts, editors=["ft_c"], score={"every_edits": 0})
    assert {run.facts.name for run in planned.runs} == {"mine"}
