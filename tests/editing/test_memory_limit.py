"""Where memory does not suffice, passes are halved and the results are the same."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from editing.errors import OutOfMemory
from editing.model.memory import Part, done_in_parts, free_bytes, is_out_of_memory, tokens_that_fit
from editing.model.progress import Progress
from tests.editing.tiny import random_lm

LIMITED = """
import json, os, resource, sys
import torch
from editing import load
from editing.methods.editor import Artifacts, make_editor
from editing.factworld.world import World
from editing.model.lm import Site
from editing.measure.moments import collect_moments
from editing.model.generation import generate
from editing.hparams import resolve_hparams
from editing.model.memory import until_it_fits
from editing.methods.targets import TargetHparams, optimise_targets
from editing.methods.training import Trainer

torch.set_num_threads(1)
lm, facts = load("factworld-tiny"), World(n_known=300).requests()
hparams = TargetHparams(steps=4, lr=0.1, weight_decay=0.1, clamp=4.0, kl_weight=0.0625)
contexts = ("", *(text.split(".")[0] + ". " for text in World(n_known=300).corpus(4)))
texts = World(n_known=300).corpus(64)

def targets(): return optimise_targets(lm, facts[:200], contexts, 1, hparams, site="block").value
def scores():
    pairs = [(p, f.target_new) for f in facts for p in (f.prompt, *f.paraphrase_prompts, *f.neighborhood_prompts)]
    found = lm.answer_logprobs([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    return torch.tensor([score.nll_sum for score in found])
def states():
    sequences = lm.format.prompts(World(n_known=300).corpus(640))
    return lm.states_at(sequences, [len(ids) - 1 for ids in sequences], [Site("key", 1)])[Site("key", 1)]
def moments(): return collect_moments(lm, texts, [1])[1].matrix
def generation(): return torch.tensor(generate(lm, lm.format.prompts([f.prompt for f in facts[:100]]), 4))

def made(name, **numbers): return make_editor(name, resolve_hparams(name, model="factworld-tiny", overrides=numbers))
def change_of(update): return update.value - lm.parameter(update.name)
def ft():
    method = made("ft", steps=3, minibatch=200)
    return change_of(method.edit(lm, facts[:200], [1], {}, Artifacts()).updates[0])
def ultraedit():
    method = made("ultraedit")
    return change_of(until_it_fits(lm, lambda: method.edit(lm, facts, [1], {}, Artifacts())).updates[0])
def training():
    method = made("malmen")
    torch.manual_seed(0)
    seen = World(n_known=300).training_requests(variants=1)[:600]
    trainer = Trainer(lm, seen, method.training_plan([1], 300), method.network_shape())
    trainer.step()
    statistics = [value.flatten() for value in trainer.networks.buffers()]
    return torch.cat([parameter.grad.flatten() for parameter in trainer.networks.parameters()] + statistics)

def limited(work, megabytes):
    lm.tokens_per_forward = 64
    expected = work()                       # also warms up whatever allocates once
    lm.tokens_per_forward = 1 << 20
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + int(megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    found = work()
    return {"tokens": lm.tokens_per_forward, "difference": float((found - expected).double().norm() / expected.double().norm())}

for name, megabytes in json.loads(sys.argv[1]).items():
    if os.fork() == 0:                      # what one takes is no other's
        print(json.dumps({name: limited(globals()[name], megabytes)}), flush=True)
        os._exit(0)
    os.wait()
"""
"""A program that does each work in a process of its own, whose address space may grow by so many megabytes."""
WORKS = {
    "targets": 64,
    "scores": 8,
    "states": 8,
    "moments": 4,
    "generation": 2,
    "ft": 4,
    "ultraedit": 4,
    "training": 8,
}


@pytest.fixture(scope="module")
def limited() -> dict[str, dict[str, float]]:
    """What each work came to: real processes in which torch's own allocations fail."""
    # Blocks of more than 64 KiB go back to the system when they are freed, and threads share one arena, so that little stays
    # to be used again.
    small = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", LIMITED, json.dumps(WORKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=small)
    found = {name: made for line in done.stdout.splitlines() for name, made in json.loads(line).items()}
    assert found.keys() == WORKS.keys(), done.stderr[-2000:]
    return found


@pytest.mark.minutes
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited through RLIMIT_AS and /proc")
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.xdist_group("limited memory")
def test_an_exhausted_memory_halves_and_changes_nothing(work: str, limited: dict[str, dict[str, float]]) -> None:
    assert limited[work]["tokens"] < 1 << 20, "memory sufficed; the test did not test"
    assert limited[work]["difference"] < 1e-5


class _Sized:
    tokens_per_forward = 8
    progress = Progress()


def test_what_is_done_is_not_done_again() -> None:
    sized, asked = _Sized(), []

    def split(numbers: Sequence[int]) -> list[Part[Sequence[int]]]:
        size = sized.tokens_per_forward
        return [Part(numbers[i : i + size], numbers[i : i + size]) for i in range(0, len(numbers), size)]

    def work(numbers: Sequence[int]) -> int:
        asked.append(list(numbers))
        if len(numbers) > 2 and 9 in numbers:
            torch.empty(10**15)  # more than any machine has: torch's own error
        return sum(numbers)

    found = done_in_parts(sized, range(12), split, work)
    assert asked == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11], [8, 9], [10, 11]]
    assert sum(total for _, total in found) == 66 and sized.tokens_per_forward == 2
    assert [list(members) for members, _ in found] == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11]]


def test_rows_of_several_items_that_never_fit_end() -> None:
    def work(_: Sequence[int]) -> None:
        torch.empty(10**15)

    with pytest.raises(OutOfMemory, match="use a shorter prompt"):
        done_in_parts(_Sized(), [0, 1], lambda numbers: [Part(numbers, numbers)], work)


def test_one_item_that_does_not_fit_says_what_to_do() -> None:
    def work(_: Sequence[int]) -> None:
        torch.empty(10**15)

    with pytest.raises(OutOfMemory, match="use a shorter prompt"):
        done_in_parts(_Sized(), [0], lambda numbers: [Part(numbers, numbers)], work)


def test_one_item_may_fit_in_smaller_passes() -> None:
    class Large:
        tokens_per_forward = 4096
        progress = Progress()

    sized = Large()

    def work(_: Sequence[int]) -> int:
        if sized.tokens_per_forward > 512:
            torch.empty(10**15)
        return sized.tokens_per_forward

    assert done_in_parts(sized, [0], lambda numbers: [Part(numbers, numbers)], work) == [([0], 512)]


def test_other_errors_are_not_taken_for_it() -> None:
    def work(_: Sequence[int]) -> None:
        torch.ones(2, 3) @ torch.ones(2, 3)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        done_in_parts(_Sized(), [0, 1], lambda numbers: [Part(numbers, numbers)], work)
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError())


def test_passes_are_sized_by_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_lm("llama")
    assert free_bytes(torch.device("cpu")) > 2**20
    sizes = []
    for free in (2**20, 2**24, 2**40):
        monkeypatch.setattr("editing.model.memory.free_bytes", lambda _device, free=free: free)
        sizes.append(tokens_that_fit(lm))
    assert sizes[0] == 64 < sizes[1] < sizes[2] == 2048
    assert sizes[1] & (sizes[1] - 1) == 0, "a power of two: the same on machines that are alike"
