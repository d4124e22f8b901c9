"""Seventeen mistakes of the first hour, what is said of each, and what it costs to hear of it."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.store import Store
from tests.first_hour.tasks import OWN
from tests.storage.test_views import fill

GOOD = """name: first
model: factworld-tiny
facts: {name: factworld, size: 4}
editors: [{name: ft, steps: 2}]
layers: [0]
batch_sizes: [2]
store: results
"""
HEAVY = ("torch", "transformers", "ray", "prefect")
"""What takes seconds to import, and tells nothing of these mistakes."""
_WRAPPED = """import sys, time
from flows.cli import main
try:
    main()
finally:
    sys.stderr.write(f"\\nCPU {time.process_time():.2f} HEAVY {[name for name in HEAVY if name in sys.modules]}\\n")
""".replace("HEAVY if", f"{HEAVY} if")


@dataclass(frozen=True)
class Mistake:
    """A command that cannot be done."""

    what: str
    arguments: Sequence[str]
    said: Sequence[str]
    """Parts of the message: what was found, what is expected, what to do."""
    change: tuple[str, str] = ("", "")
    """What in a good experiment file is another text."""


@dataclass(frozen=True)
class Told:
    """What came of it."""

    message: str
    rc: int
    cpu_s: float
    heavy: str


MISTAKES = (
    Mistake("a typo in a key", ["plan", "e.yaml"], ["batch_sise: unknown key (did you mean 'batch_sizes'?)", "line 6: batch_sise: [2]"],
            ("batch_sizes", "batch_sise")),
    Mistake("a typo in an editor", ["plan", "e.yaml"], ["no editor 'memitt' (did you mean 'memit'?)", "line 4:"], ("name: ft, steps: 2", "name: memitt")),
    Mistake("a layer that is not there", ["plan", "e.yaml"], ["no layers [17] in factworld-tiny; expected layers from 0 to 5", "line 5:"],
            ("[0]", "[17]")),
    Mistake("a typo in a benchmark", ["plan", "e.yaml"], ["no benchmark 'mmlus' (did you mean 'mmlu'?)", "line 7:"],
            ("store:", "score: {benchmarks: [mmlus]}\nstore:")),
    Mistake("a typo in a column", ["query", "SELECT efficasy FROM run_summary"], ['"efficasy" not found', '"efficacy"']),
    Mistake("a typo in a table", ["query", "FROM run_sumary"], ["run_sumary does not exist", "Did you mean run_summary"]),
    Mistake("a typo in a run", ["show", "memit-b9"], ["no run 'memit-b9' in results", "near it: ['memit-b1-", "palimpsest status"]),
    Mistake("a batch larger than the facts", ["plan", "e.yaml"], ["batch size 8 with facts.size 4 gives no full batch", "line 6:"], ("[2]", "[8]")),
    Mistake("a store that is a file", ["run", "e.yaml", "--set", "store=facts.csv"], ["facts.csv is a file; expected a directory"]),
    Mistake("a full disk", ["run", "e.yaml", "--set", "store=full"], ["takes no 8 MiB", "free space on its disk"]),
    Mistake("tabs", ["plan", "e.yaml"], ["a tab stands where YAML takes spaces only; indent with spaces", "line 7: →   - 2"],
            ("batch_sizes: [2]", "batch_sizes:\n\t- 2")),
    Mistake("a number as text", ["plan", "e.yaml"], ["batch_sizes.0: Input should be a valid integer, without quotes (found '2')", "line 6:"],
            ("[2]", "['2']")),
    Mistake("a file that is not there", ["plan", "e.yaml"], ["facts.path: file ", "facts.jsonl does not exist; check the path", "line 3:"],
            ("{name: factworld, size: 4}", "facts.jsonl")),
    Mistake("a model without weights", ["plan", "e.yaml"], ["model: model folder ", "hollow: found ['config.json']; expected config.json, model.safetensors"],
            ("factworld-tiny", "hollow")),
    Mistake("facts without a field", ["plan", "e.yaml"],
            ["record 0: target_new: found only the columns ['prompt', 'subject', 'target']", "Call it target_new"], ("{name: factworld, size: 4}", "facts.csv")),
    Mistake("a pipe as a store", ["run", "e.yaml", "--set", "store=fifo"], ["fifo is no directory; expected one"]),
    Mistake("a typo after --set", ["plan", "e.yaml", "--set", "facts.sise=3"], ["facts.sise: unknown key (did you mean 'size'?)", "(--set)"]),
)  # fmt: skip
NEED_A_MODEL = ("facts without a field",)
"""Mistakes that are found behind a model: its tokenizer has to be read first."""


def prepare(folder: Path) -> None:
    """Write what mistakes are made with."""
    (folder / "facts.csv").write_text("prompt,subject,target\nS is in,S,x\n")
    (folder / "hollow").mkdir()
    (folder / "hollow" / "config.json").write_text('{"model_type": "gpt2", "n_layer": 6}')
    os.mkfifo(folder / "fifo")
    fill(Store(folder / "results", create=True), 4, own={}, kept={}, every=4)


def make(mistake: Mistake, folder: Path, commands: Path = OWN) -> Told:
    """Make a mistake in a prepared folder, with the commands of an installation."""
    assert mistake.change[0] in GOOD
    (folder / "e.yaml").write_text(GOOD.replace(*mistake.change, 1) if mistake.change[0] else GOOD)
    command = [str(commands / "python"), "-c", _WRAPPED, *mistake.arguments]
    if mistake.what == "a full disk":  # no file may have more than a megabyte
        command = ["bash", "-c", 'ulimit -f 1024; exec "$@"', "-", *command]
    environment = {key: value for key, value in os.environ.items() if key not in ("PREFECT_HOME", "PREFECT_API_URL")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)
    message, _, last = (done.stdout + done.stderr).rpartition("\nCPU ")
    cpu, _, heavy = last.partition(" HEAVY ")
    return Told(message.strip(), done.returncode, float(cpu), heavy.strip())
