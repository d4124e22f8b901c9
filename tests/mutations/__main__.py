"""Print the table of all mutations, and every message that is not as it should be."""

import sys
import tempfile
from pathlib import Path

from tasks.reports.tables import print_table
from tests.mutations.cases import all_cases
from tests.mutations.stages import Outcome, drive, make_good, quiet, table


def main(only: str = "") -> None:
    """Run the cases whose kind has ``only`` in its name."""
    quiet()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as place:
        good = Path(place) / "good"
        make_good(good)
        for number, case in enumerate(all_cases(good, good / "store")):
            if only in case.kind:
                outcome = drive(case, good, Path(place) / f"case-{number}")
                outcomes.append(outcome)
                if outcome.faults:
                    said = str(outcome.error).replace("\n", " / ")[:600]
                    sys.stdout.write(
                        f"[{number}] {case.kind}: {case.what} -> {outcome.stage}: {outcome.faults}: {said}\n"
                    )
    print_table(table(outcomes))
    late = [o for o in outcomes if o.error is not None and not o.is_bare and o.stage != "plan"]
    for outcome in late:
        said = str(outcome.error)[:160]
        sys.stdout.write(f"later: {outcome.case.kind}: {outcome.case.what} -> {outcome.stage}: {said!r}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
