"""Benchmarks: ``python -m tests.bench``; prints a table and writes ``bench.json``.

Ratios of thread CPU time measured in one run, interleaved, median of three; never a timed unit test.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.world import World
from editing.lm import LanguageModel
from editing.targets import TargetHparams, optimise_targets
from tests.bench.plain import plain_target

LAYER, N_FACTS, N_PLAIN, REPEATS = 4, 8, 2, 3
HPARAMS = TargetHparams(steps=4, lr=0.5, weight_decay=0.5, clamp=0.75, kl_weight=0.0625)


def fixed_shape() -> LanguageModel:
    """GPT-2's shape with random weights from a seed: 12 × 768, vocabulary 50,257, float32."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=12, n_embd=768, n_head=12, vocab_size=50257, bos_token_id=0, eos_token_id=0)
    return LanguageModel(GPT2LMHeadModel(config), build_tokenizer(bos=False), name="random-gpt2-12x768")


def contexts() -> tuple[str, ...]:
    """The bare context and five prefixes of about ten tokens."""
    return ("", *(" ".join(World().corpus(1, seed=i)[0].split()[:10]) + ". " for i in range(5)))


def seconds(work: Callable[[], Any]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def gemm_rate() -> float:
    """FLOP per second of a float32 matrix product of the model's kind."""
    a, b = torch.randn(512, 768), torch.randn(768, 3072)
    work = [seconds(lambda: [a @ b for _ in range(8)]) for _ in range(5)]
    return 8 * 2 * 512 * 768 * 3072 / min(work)


def targets_of_eight_facts() -> dict[str, Any]:
    """Targets of 8 facts at once against the plain loop over facts."""
    lm, requests = fixed_shape(), World().requests()[:N_FACTS]

    def fast() -> torch.Tensor:
        return optimise_targets(lm, requests, contexts(), LAYER, HPARAMS, site="block").value

    def plain() -> torch.Tensor:
        found = [plain_target(lm, r, contexts(), LAYER, HPARAMS, site="block") for r in requests[:N_PLAIN]]
        return torch.stack([initial + delta for initial, delta, _ in found])

    expected = plain()
    error = float((fast()[:N_PLAIN] - expected).norm() / expected.norm())
    with FlopCounterMode(display=False) as counter:
        fast()
    flops = counter.get_total_flops()
    ratios, efficiencies, rows = [], [], []
    for _ in range(REPEATS):
        slow, quick, rate = seconds(plain) / N_PLAIN, seconds(fast) / N_FACTS, gemm_rate()
        ratios.append(slow / quick)
        efficiencies.append(flops / N_FACTS / quick / rate)
        rows.append((slow, quick, rate / 1e9))
    ratio = statistics.median(ratios)
    return {
        "name": "targets_batched_8",
        "ratio": ratio,
        "target": 2.0,
        "relative_error": error,
        "efficiency": statistics.median(efficiencies),
        "ok": ratio >= 2.0 and error <= 1e-4,
        "seconds_per_fact": {"plain": rows[-1][0], "batched": rows[-1][1]},
        "gemm_gflops": rows[-1][2],
    }


def main() -> None:
    """Run all benchmarks on one thread."""
    torch.set_num_threads(1)
    results = [targets_of_eight_facts()]
    Path("bench.json").write_text(json.dumps(results, indent=1) + "\n")
    for row in results:
        sys.stdout.write(
            f"{row['name']:<20} {row['ratio']:6.2f}x (target {row['target']:g}x)  error {row['relative_error']:.1e}  "
            f"{100 * row['efficiency']:.0f} % of the GEMM rate  {'ok' if row['ok'] else 'MISSED'}\n"
        )
    sys.exit(0 if all(row["ok"] for row in results) else 1)


if __name__ == "__main__":
    main()
