"""Peak memory of one meta-gradient step over the number of edits, each in a process of its own.

``python -m tests.bench.memory --figure FILE.png`` measures and draws MALMEN's and MEND's.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
HELD_ONLY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Makes glibc give freed tensors back at once, so that the peak is what is held, not what its heap keeps for later."""


def resident(field: str) -> float:
    """Return VmRSS or VmHWM of this process in MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def measure(editor: str, edits: int, model: str) -> dict[str, float]:
    """Return MiB held before training and the peak above it, over two steps of ``edits`` joint edits."""
    import torch

    from editing import load
    from editing.hparams import resolve_hparams
    from editing.methods.editor import make_editor
    from editing.methods.trained import TrainedEditor
    from editing.methods.training import Trainer
    from tasks.data.facts import world_for

    torch.set_num_threads(1)
    lm = load(model)
    lm.tokens_per_forward = 64  # full passes at any number of edits: groups are of similar length
    facts = world_for(model).training_requests(unknown=True)
    method = make_editor(editor, resolve_hparams(editor, model=model))
    assert isinstance(method, TrainedEditor)
    layers = range(lm.n_layers - 3, lm.n_layers)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    trainer = Trainer(lm, facts, method.training_plan(list(layers), edits), method.network_shape())
    trainer.train(2)
    return {"edits": edits, "held": before, "peak": resident("VmHWM") - before}


def compare(
    editor: str, counts: tuple[int, ...], model: str = "factworld-gpt2", *, held_only: bool = True
) -> list[dict[str, float]]:
    """Measure each number of edits in a fresh process."""
    rows = []
    for count in counts:
        command = [sys.executable, "-m", "tests.bench.memory", editor, str(count), model]
        environment = os.environ | (HELD_ONLY if held_only else {})
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def figure(path: Path, counts: tuple[int, ...] = (8, 32, 128, 512, 4096)) -> None:
    """Draw the peak over the number of joint edits, a line per editor and allocator, and print what is drawn."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(6, 3.6), layout="constrained").subplots()
    for editor, held_only in itertools.product(("malmen", "mend"), (True, False)):
        rows = compare(editor, counts, held_only=held_only)
        label = f"{editor}, " + ("held" if held_only else "with the allocator's cache")
        axes.plot(counts, [row["peak"] for row in rows], "o-" if held_only else "o--", label=label)
        peaks = ", ".join(f"{row['edits']:g}: {row['peak']:.1f}" for row in rows)
        sys.stdout.write(f"{label}: {peaks} MiB\n")
    axes.set(xlabel="joint edits m", ylabel="peak memory of training (MiB)", xscale="log")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    axes.figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if sys.argv[1] == "--figure":
        figure(Path(sys.argv[2]))
    else:
        found = measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
        sys.stdout.write(json.dumps(found) + "\n")
