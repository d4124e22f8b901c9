"""Small files in the formats in which benchmarks are published, generated; each example's answer follows from its number."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LETTERS = "ABCDE"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def sst2(root: Path, n: int) -> None:
    for split in ("dev", "train"):
        rows = [f"the {split} film no. {i} is {'good' if i % 3 else 'bad'} \t{int(i % 3 > 0)}" for i in range(n)]
        write(root / f"{split}.tsv", "sentence\tlabel\n" + "\n".join(rows) + "\n")


def mrpc(root: Path, n: int) -> None:
    for split in ("test", "train"):
        rows = [f'{i % 2}\t{i}\t{i + 1}\tThe "{split}" king said {i}.\tThe king said {i + i % 2}.' for i in range(n)]
        write(
            root / f"msr_paraphrase_{split}.txt",
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "\n".join(rows) + "\n",
        )


def cola(root: Path, n: int) -> None:
    for name in ("in_domain_dev", "out_of_domain_dev", "in_domain_train"):
        rows = [f"gj04\t{int(i % 4 > 0)}\t{'' if i % 4 else '*'}\tSentence {i} of {name}." for i in range(n // 2)]
        write(root / f"{name}.tsv", "\n".join(rows) + "\n")


def rte(root: Path, n: int) -> None:
    for split in ("dev", "train"):
        rows = [
            {
                "premise": f"{i} {split} men sing.",
                "hypothesis": f"{i + i % 2} men sing.",
                "label": "not_entailment" if i % 2 else "entailment",
                "idx": i,
            }
            for i in range(n)
        ]
        write_lines(root / f"{split}.jsonl", rows)


def ax_b(root: Path, n: int) -> None:
    rows = [
        {
            "idx": str(i),
            "label": "not_entailment" if i % 2 else "entailment",
            "sentence1": f"Cat {i} sat.",
            "sentence2": f"Cat {i + i % 2} sat.",
            "logic": "Negation",
        }
        for i in range(n)
    ]
    write_lines(root / "AX-b.jsonl", rows)


def mmlu(root: Path, n: int) -> None:
    """Without a header, answers as letters: as the authors publish them."""
    for subject in ("anatomy", "virology"):
        for split in ("test", "dev"):
            rows = [
                f'"What is {i}, ""{split}""? ",{i},{i + 1},"{i + 2}, or so",{i + 3},{LETTERS[i % 4]}' for i in range(n)
            ]
            write(root / split / f"{subject}_{split}.csv", "\n".join(rows) + "\n")


def commonsense_qa(root: Path, n: int) -> None:
    for split in ("dev", "train"):
        rows = [
            {
                "answerKey": LETTERS[i % 5],
                "id": str(i),
                "question": {
                    "question_concept": "thing",
                    "stem": f"Where is the {split} thing {i}? ",
                    "choices": [{"label": letter, "text": f"place {letter}{i}"} for letter in LETTERS],
                },
            }
            for i in range(n)
        ]
        write_lines(root / f"{split}_rand_split.jsonl", rows)


def bbh(root: Path, n: int) -> None:
    tasks: dict[str, Callable[[int], tuple[str, str]]] = {
        "navigate": lambda i: (f"Turn {i} times.\nOptions:\n- Yes\n- No", "No" if i % 2 else "Yes"),
        "date_understanding": lambda i: (
            f"Today is day {i}.\nOptions:\n(A) day {i}\n(B) day {i + 1}",
            "(BA)"[1 + i % 2],
        ),
        "word_sorting": lambda i: (f"Sort: List: b{i} a{i}", f"a{i} b{i}"),
    }
    for name, make in tasks.items():
        examples = [dict(zip(("input", "target"), make(i), strict=True)) for i in range(n)]
        for example in examples if name == "date_understanding" else ():
            example["target"] = f"({example['target']})"
        write(root / f"{name}.json", json.dumps({"canary": "generated", "examples": examples}))


def math(root: Path, n: int) -> None:
    for split in ("test", "train"):
        for i in range(n):
            solution = f"We add. So it is $\\boxed{{\\frac{{{i}}}{{7}}}}$."
            record = {"problem": f"What is {i}/7?", "level": "Level 1", "type": "Algebra", "solution": solution}
            write(root / split / "algebra" / f"{i}.json", json.dumps(record))


def c3_question(i: int) -> dict[str, Any]:
    return {"question": f"几？{i}", "choice": [f"{i}", f"{i}个", "很多"], "answer": f"{i}个"}


def c3(root: Path, n: int) -> None:
    for part in ("d", "m"):
        records = [
            [
                [f"男：{i}。", "女：好。"],
                [{"question": f"几？{i}", "choice": [f"{i}", f"{i}个", "很多"], "answer": f"{i}个"}],
                f"{i}",
            ]
            for i in range(n // 2)
        ]
        path = root / f"c3-{part}-dev.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(json.dumps(records, ensure_ascii=False).encode()))


def tydiqa(root: Path, n: int) -> None:
    for split in ("dev", "train"):
        paragraphs = [
            {
                "context": f"The {split} river {i} is {i} km long.",
                "qas": [
                    {
                        "id": f"{language}-{i}",
                        "question": f"How long is river {i}?",
                        "answers": [{"text": f"the {i} km", "answer_start": 0}, {"text": f"{i} km", "answer_start": 0}],
                    }
                    for language in ("english", "finnish")
                ],
            }
            for i in range(n)
        ]
        write(
            root / f"tydiqa-goldp-v1.1-{split}.json",
            json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": [p]} for p in paragraphs]}),
        )


def mbpp(root: Path, n: int) -> None:
    rows = [
        {
            "text": f"Write a function that adds {i}.",
            "code": f"def add(x):\r\n  return x + {i}",
            "task_id": i,
            "test_setup_code": "",
            "test_list": [f"assert add({k}) == {k + i}" for k in range(3)],
            "challenge_test_list": [],
        }
        for i in range(1, n + 11)
    ]
    write_lines(root / "mbpp.jsonl", rows)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "sst2": sst2,
    "sst2_paper": sst2,
    "mrpc": mrpc,
    "mrpc_paper": mrpc,
    "cola": cola,
    "cola_paper": cola,
    "rte": rte,
    "rte_paper": rte,
    "nli_paper": rte,
    "ax_b": ax_b,
    "mmlu": mmlu,
    "commonsense_qa": commonsense_qa,
    "bbh": bbh,
    "bbh_choices": bbh,
    "math": math,
    "c3": c3,
    "tydiqa": tydiqa,
    "mbpp": mbpp,
}
GROUPS: dict[str, tuple[str, ...]] = {
    "mmlu": ("anatomy", "virology"),
    "bbh": ("navigate", "date_understanding", "word_sorting"),
    "bbh_choices": ("navigate", "date_understanding"),
    "math": ("algebra",),
    "tydiqa": ("english", "finnish"),
}
"""What of a benchmark's groups the generated files hold."""
