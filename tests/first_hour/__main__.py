"""Do the tasks of the first hour, and make its mistakes, and show what each takes.

``python -m tests.first_hour [--commands DIR] [WORDS]``: with the commands of another installation, as of a wheel; some tasks.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tasks.reports.tables import print_table
from tests.first_hour.mistakes import MISTAKES, make, prepare
from tests.first_hour.tasks import OWN, TASKS, do

parser = argparse.ArgumentParser()
parser.add_argument("--commands", type=Path, default=OWN)
parser.add_argument("words", nargs="*")
asked = parser.parse_args()
wanted = [task for task in TASKS if all(word in task.wish for word in asked.words)]
names = {name for task in wanted for name in task.after}
chosen = [
    task
    for task in TASKS
    if task in wanted or task.wish in names or any(task.wish in t.after for t in TASKS if t.wish in names)
]
with tempfile.TemporaryDirectory() as folder:
    found = [do(task, Path(folder), asked.commands.absolute()) for task in chosen]
print_table([
    {"task": each.wish, "lines": each.n_lines, "wall s": round(each.wall_s, 1), "CPU s": round(each.cpu_s, 1), "done": not each.problem}
    for each in found
])  # fmt: skip
if not asked.words:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        told = [(mistake, make(mistake, Path(folder), asked.commands.absolute())) for mistake in MISTAKES]
    print_table([
        {"mistake": mistake.what, "rc": said.rc, "CPU s": round(said.cpu_s, 2), "message": said.message.removeprefix("error: ")}
        for mistake, said in told
    ])  # fmt: skip
for each in found:
    if each.problem:
        sys.stderr.write(f"\n{each.wish}\n{each.problem}\n")
sys.exit(any(each.problem for each in found))
