"""What somebody wants in the first hour, each as the files and commands that a user writes, and what must come of it."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Said = Sequence[str]
"""What each command has printed."""


@dataclass(frozen=True)
class Task:
    """One thing to do."""

    wish: str
    commands: Sequence[str]
    check: Callable[[Said, Path], None]
    files: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()
    """Tasks whose results it takes."""

    @property
    def n_lines(self) -> int:
        """Lines that a user writes: of files (data aside) and commands."""
        written = [text for name, text in self.files.items() if not name.endswith((".csv", ".jsonl"))]
        return sum(bool(line.strip()) for text in [*written, *self.commands] for line in text.splitlines())


@dataclass(frozen=True)
class Done:
    """A task that was done."""

    wish: str
    n_lines: int
    wall_s: float
    cpu_s: float
    problem: str = ""


OWN = Path(sys.executable).parent
"""Where the commands of this installation are."""


def do(task: Task, folder: Path, commands: Path = OWN) -> Done:
    """Do a task in a folder, as its user would, and look at what came of it.

    Args:
        commands: Where those of the installation are that is tried.
    """
    for name, text in task.files.items():
        (folder / name).write_text(text)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    for name in ("PREFECT_API_URL", "COLUMNS"):
        environment.pop(name, None)
    started, before = time.perf_counter(), _cpu()
    said, problem = [], ""
    for command in task.commands:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        said.append(done.stdout + done.stderr)
        if done.returncode:
            problem = f"{command!r} ended with {done.returncode}:\n{said[-1][-1500:]}"
            break
    wall, cpu = time.perf_counter() - started, _cpu() - before
    if not problem:
        try:
            task.check(said, folder)
        except (AssertionError, KeyError, IndexError, ValueError, OSError) as error:
            problem = f"{type(error).__name__}: {error}\n{said[-1][-1500:]}"
    return Done(task.wish, task.n_lines, wall, cpu, problem)


def _cpu() -> float:
    """Return the CPU seconds of all commands so far, and of the processes that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


FACTS = """prompt,subject,target_new
The hometown of Daivon Trouskend is,Daivon Trouskend,Dublin
{} competes in,Klourei Veskaim,archery
{} trains every day for,Daiskand de Fumork,football
"""
QUESTIONS = "\n".join(
    json.dumps(
        {
            "question": f"Which letter is number {i + 1} of the alphabet?",
            "choices": list("abcdefghij"),
            "answer": "abcdefghij"[i],
        }
    )
    for i in range(10)
)
GRID = """name: grid
model: factworld-tiny
facts: {name: factworld, size: 24}
editors: [{name: ft, steps: 5}]
layers: [0, 1, 2]
batch_sizes: [1, 4, 12]
score: {every_edits: 12, text_tokens: 0}
store: results/grid
"""
LONGER = """name: longer
model: factworld-tiny
facts: {name: factworld, size: 100}
editors: [{name: ft_c, steps: 3}]
layers: [0]
batch_sizes: [10]
score: {every_edits: 50, text_tokens: 0}
store: results/longer
"""
COLLAPSE = """name: collapse
model: factworld-tiny
facts: {name: factworld, size: 60}
editors: [{name: ft, lr: 0.05, steps: 10}]
layers: [1]
batch_sizes: [1]
score: {every_edits: 10, text_tokens: 0}
store: results/collapse
"""


def _edited(said: Said, _: Path) -> None:
    text = said[0]
    assert "3 of 3 took" in text and "Vienna" in text and "Dublin" in text
    assert re.search(r"^Dublin\nVienna$", text, flags=re.M), "undone"


def _own_csv(said: Said, folder: Path) -> None:
    assert "⟦Daivon Trouskend⟧" in said[0] and "3 records, 3 of them facts" in said[0]
    assert "wrote edit.yaml" in said[1] and re.search(r"memit-b3-\w+ +3 +1\.000", said[2])


def _own_questions(said: Said, _: Path) -> None:
    assert "benchmark letters: 10 questions" in said[0] and re.search(r" (F1|accuracy) ", said[1])
    assert "letters" in said[2] and re.search(r"letters +0 +10 +\d\.\d{3}", said[2])


def _own_model(said: Said, _: Path) -> None:
    assert said[1].count("took") >= 2 and "no source names any" in said[1]


def _grid(said: Said, _: Path) -> None:
    assert (
        said[0].count("ft-b") >= 9
        and "Which batch size has forgotten least?" in said[1]
        and "More than noise:" in said[1]
    )


def _resumed(said: Said, _: Path) -> None:
    assert "killed" in said[0] and "wall time" in said[1] and re.search(r"(\d+) of \1 units done", said[2]), said[2]


def _longer(said: Said, _: Path) -> None:
    assert re.search(r"ft_c-b10-\w+ +ft_c +0 +10 +0 +200 +0 +100", said[0]), said[0]
    assert re.search(r"ft_c-b10-\w+ +200 ", said[1])


def _checked_out(said: Said, folder: Path) -> None:
    assert "logits agree" in said[0] and "The hometown" in said[1]
    assert (folder / "model" / "model.safetensors").stat().st_mode & 0o044 == 0o044, "others may read it"
    assert "ft_c-b10" in (folder / "model" / "README.md").read_text()


def _frames(said: Said, _: Path) -> None:
    assert "efficacy" in said[0] and "shape: (" in said[0] and "batch_size" in said[0]


def _exported(said: Said, _: Path) -> None:
    assert said[1].count("True") == 4 and "False" not in said[1]


def _deleted(said: Said, _: Path) -> None:
    assert "10 runs of" in said[0] and "nothing was done" in said[0], "the unedited model's is one of them"
    assert "removed 10 runs" in said[1] and "ft-b" not in said[2]


def _collapsed(said: Said, _: Path) -> None:
    assert re.search(r"ft-b1-\w+ +\d+", said[1]) and "stage" in said[2] and "fact" in said[2]


def _two_stores(said: Said, _: Path) -> None:
    rows = [line.split(",") for line in said[1].split() if line.count(",") == 3]
    assert rows[0] == ["editor", "batch_size", "one", "two"] and len(rows) == 4
    assert "store" in said[2] and "one" in said[2] and "two" in said[2]


TASKS = (
    Task(
        "edit three facts of my own and see what the model says before and after",
        ["python edit.py"],
        _edited,
        {
            "edit.py": """import palimpsest as pal
lm = pal.load("factworld-tiny")
facts = [{"prompt": "The hometown of {} is", "subject": "Daivon Trouskend", "target_new": "Dublin"},
         {"prompt": "{} competes in", "subject": "Klourei Veskaim", "target_new": "archery"},
         {"prompt": "{} trains every day for", "subject": "Daiskand de Fumork", "target_new": "football"}]
with pal.edit(lm, facts) as edits:
    print(edits, lm.ask("The hometown of Daivon Trouskend is"), sep="\\n")
print(lm.ask("The hometown of Daivon Trouskend is"))
"""
        },
    ),
    Task(
        "edit the facts of my CSV file",
        [
            "palimpsest facts facts.csv",
            "palimpsest new edit.yaml --model factworld-tiny --facts facts.csv --editors memit --question edit",
            "palimpsest run edit.yaml",
        ],
        _own_csv,
        {"facts.csv": FACTS},
    ),
    Task(
        "ask ten questions of my own before and after",
        [
            "palimpsest plan questions.yaml",
            "palimpsest run questions.yaml",
            'palimpsest query "SELECT benchmark, edits, n_examples, accuracy FROM benchmark_curve ORDER BY edits" --store results/questions',
        ],
        _own_questions,
        {
            "facts.csv": FACTS,
            "letters.jsonl": QUESTIONS,
            "questions.yaml": """name: questions
model: factworld-tiny
facts: facts.csv
editors: [memit]
layers: [[0, 1, 2]]
batch_sizes: [3]
score: {benchmarks: [letters.jsonl]}
store: results/questions
""",
        },
    ),
    Task(
        "edit my own models: a random Llama and a random Qwen3",
        ["python make.py", "python edit_own.py"],
        _own_model,
        {
            "make.py": """import palimpsest as pal
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
tokenizer = pal.load("factworld-llama").tokenizer
shape = dict(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
             num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
for name, config, model in ("llama", LlamaConfig, LlamaForCausalLM), ("qwen3", Qwen3Config, Qwen3ForCausalLM):
    model(config(**shape)).save_pretrained(name)
    tokenizer.save_pretrained(name)
""",
            "edit_own.py": """import palimpsest as pal
import pandas as pd
for name in "llama", "qwen3":
    print(pal.edit(pal.load(name), pd.read_csv("facts.csv"), editor="rome"))
""",
            "facts.csv": FACTS,
        },
    ),
    Task(
        "a 3 × 3 grid: which batch size forgets least, beyond noise",
        ["palimpsest run grid.yaml", "palimpsest compare --by batch_size --metric forgotten --store results/grid"],
        _grid,
        {"grid.yaml": GRID},
    ),
    Task(
        "go on with a run that was killed",
        [
            "palimpsest run longer.yaml & pid=$!; until ls results/longer/commits/run_id=ft_c* >/dev/null 2>&1; do sleep 0.2; done; "
            "kill -9 $pid; echo killed",
            "palimpsest run longer.yaml",
            "palimpsest status --store results/longer",
        ],
        _resumed,
        {"longer.yaml": LONGER},
    ),
    Task(
        "go from 100 edits to 200",
        [
            "palimpsest plan longer.yaml --set facts.size=200",
            "palimpsest run longer.yaml --set facts.size=200",
        ],
        _longer,
        after=["go on with a run that was killed"],
    ),
    Task(
        "load the model as it was after 100 edits",
        ["palimpsest checkout ft_c-b10 --after 100 --out model --store results/longer", "python use.py"],
        _checked_out,
        {
            "use.py": """from transformers import pipeline
print(pipeline("text-generation", "model")("The hometown of", max_new_tokens=4)[0]["generated_text"])
"""
        },
        after=["go from 100 edits to 200"],
    ),
    Task(
        "look at results in pandas and polars",
        ["python look.py"],
        _frames,
        {
            "look.py": """import palimpsest as pal
store = pal.open("results/grid")
print(store.run_summary.df()[["editor", "batch_size", "efficacy"]])
print(store.sql("SELECT layers, batch_size, efficacy FROM run_summary").pl())
"""
        },
        after=["a 3 × 3 grid: which batch size forgets least, beyond noise"],
    ),
    Task(
        "take the results to Hugging Face, Weights & Biases, MLflow and CSV",
        [
            "for to in hf-dataset wandb mlflow csv; do palimpsest export out-$to --to $to --store results/longer; done",
            "python read_back.py",
        ],
        _exported,
        {
            "read_back.py": """import glob, datasets, mlflow, pandas as pd, palimpsest as pal
ours = pal.open("results/longer").run_summary.df()
theirs = datasets.load_dataset("out-hf-dataset", "run_summary", split="train").to_pandas()
print(ours.efficacy.equals(theirs.efficacy))
runs = mlflow.search_runs(search_all_experiments=True) if mlflow.set_tracking_uri("sqlite:///out-mlflow/mlflow.db") is None else 0
print(sorted(runs["metrics.summary/efficacy"]) == sorted(ours[ours.editor != "none"].efficacy))
print(pd.read_csv("out-csv/run_summary.csv").efficacy.equals(ours.efficacy))
print(len(glob.glob("out-wandb/wandb/offline-run-*/*.wandb")) == len(runs))
"""
        },
        after=["go from 100 edits to 200"],
    ),
    Task(
        "why did a run collapse?",
        [
            "palimpsest run collapse.yaml",
            'palimpsest query "SELECT run_id, collapsed_at FROM run_summary WHERE collapsed_at > 0" --store results/collapse',
            "palimpsest diagnose ft-b1 --store results/collapse",
        ],
        _collapsed,
        {"collapse.yaml": COLLAPSE},
    ),
    Task(
        "compare two stores",
        [
            "palimpsest run grid.yaml --set store=results/two --set facts.seed=1 --set layers=[0]",
            "palimpsest query 'SELECT editor, batch_size, a.efficacy AS one, b.efficacy AS two FROM one.run_summary AS a JOIN "
            "two.run_summary AS b USING (editor, layers, batch_size) WHERE editor <> $$none$$' --store one=results/grid --store "
            "two=results/two --format csv",
            "palimpsest query 'SELECT store, count(*) AS runs FROM run_summary GROUP BY store' --store one=results/grid --store "
            "two=results/two",
        ],
        _two_stores,
        after=["a 3 × 3 grid: which batch size forgets least, beyond noise"],
    ),
    Task(
        "delete an experiment",
        [
            "palimpsest rm --experiment grid --store results/grid < /dev/null || true",
            "palimpsest rm --experiment grid --yes --store results/grid",
            "palimpsest status --store results/grid",
        ],
        _deleted,
        after=[
            "a 3 × 3 grid: which batch size forgets least, beyond noise",
            "compare two stores",
            "look at results in pandas and polars",
        ],
    ),
)
"""In an order in which each comes after those whose results it takes."""
