"""Tables for people, and files with the full precision."""

import io
import sys
from itertools import permutations
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.report import write_report
from tasks.reports.tables import format_cell, format_of, print_table, write_table
from tests.storage.test_views import fill


def test_a_double_is_rounded_alike_wherever_its_last_bits_come_from() -> None:
    """The order of a sum decides whether 2.7325 is met from above or from below."""
    parts = [0.7103, 0.785, 0.6253, 0.6119]
    sums = {sum(order) for order in permutations(parts)}
    assert len(sums) > 1 and len({f"{value:.3f}" for value in sums}) > 1, "the case has to be one"
    assert len({format_cell(value) for value in sums}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (1.0, "1.000"), (1e-9, "0.000"), (12345.6789, "12345.679"), ([0, 1], "[0, 1]")],
)
def test_cells(value: object, text: str) -> None:
    assert format_cell(value) == text


def test_terminal_and_report_show_the_same_and_files_hold_everything(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    fill(store, 7, own={1: False}, kept={}, every=4)
    table = query(store, "SELECT efficacy, drift FROM run_summary")
    shown = io.StringIO()
    print_table(table.to_pylist(), shown)
    assert shown.getvalue().split() == ["efficacy", "drift", "0.857", "0.600"]
    write_report(store)
    assert "<td>0.857</td>" in Path(store.location, "report.html").read_text()
    for format in ("csv", "json"):
        out = tmp_path / f"out.{format}"
        write_table(table, format, out)
        assert str(6 / 7) in out.read_text()
    out = tmp_path / "out.parquet"
    write_table(table, "parquet", out)
    assert pq.read_table(out).column("efficacy").to_pylist() == [6 / 7]


def test_files_and_streams_that_cannot_take_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    store = Store(tmp_path / "store", create=True)
    fill(store, 2, own={}, kept={}, every=4)
    table = query(store, "SELECT edits, layers FROM run_summary")
    with pytest.raises(InputError, match="--format 'xml': expected one of"):
        write_table(table, "xml", None)
    for out in (tmp_path, tmp_path / "nowhere" / "file"):
        with pytest.raises(InputError, match=f"--out {out}: expected a file in a directory that is there"):
            write_table(table, "csv", out)
    assert [format_of(Path(name)) for name in ("a.csv", "a.json", "a.parquet", "a.txt", "a")] == [
        "csv", "json", "parquet", "table", "table"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"nothing is known of '.xlsx'"):
        format_of(Path("a.xlsx"))
    write_table(table, "csv", None)
    assert capsysbinary.readouterr().out.splitlines() == [b"edits,layers", b"2,[0]"], "to whatever reads the output"
    write_table(table, "parquet", None)
    assert capsysbinary.readouterr().out.startswith(b"PAR1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(InputError, match="--format parquet writes bytes"):
        write_table(table, "parquet", None)
