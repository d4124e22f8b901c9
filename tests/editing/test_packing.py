"""Packed rows: each sequence sees its own tokens and nothing else, whatever stands beside it."""

import random

import pytest
import torch

from editing.model.lm import KEPT_PREFIX, Site
from editing.model.packing import common_front, pack, shared_prefix, side_by_side
from editing.model.tokens import pad_rows
from editing.model.upper_pass import live_columns
from tests.bench.plain import plain_scores
from tests.editing.tiny import DECODERS, TOLERANCE, random_lm, relative, requests, texts

families = pytest.mark.parametrize("family", DECODERS)


def random_sequences(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Sequences over three tokens: many common beginnings, repetitions, and some that begin with others."""
    rng = random.Random(seed)
    return [tuple(rng.randrange(3) for _ in range(rng.randint(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("row_tokens", [4, 12, 1000])
def test_a_token_sees_exactly_its_own_sequence_up_to_itself(row_tokens: int) -> None:
    sequences = random_sequences(60)
    found = {}
    for packed in pack(sequences, tokens=40, row_tokens=row_tokens):
        assert packed.ids.numel() <= 40 or len(packed.ids) == 1
        for number, row, path in packed.columns:
            found[number] = tuple(packed.ids[row, list(path)].tolist())
            assert packed.positions[row, list(path)].tolist() == list(range(len(path)))
            for place, column in enumerate(path):
                assert packed.sees[row, column].nonzero()[:, 0].tolist() == sorted(path[: place + 1])
    assert [found[i] for i in range(len(sequences))] == sequences


def test_what_sequences_begin_with_stands_in_a_row_once() -> None:
    sequences = random_sequences(60)
    (packed,) = pack(sequences, tokens=10_000, row_tokens=10_000)
    beginnings = {sequence[:length] for sequence in sequences for length in range(1, len(sequence) + 1)}
    assert packed.ids.shape == (1, len(beginnings))


@pytest.mark.parametrize("limits", [(9, 9, 9), (1, 0, 2)])
def test_groups_stand_behind_what_their_sequences_begin_with_alike(limits: tuple[int, ...]) -> None:
    starts = [(5, 6, 7), (8, 9), ()]
    groups = [
        [start + tail for start, tail in zip(starts, random_sequences(3, seed), strict=True)] for seed in range(4)
    ]
    front = common_front(groups, limits)
    alike = [min(limit, shared_prefix([group[i] for group in groups])) for i, limit in enumerate(limits)]
    assert [len(path) for path in front.begun] == alike and sum(alike) > 0
    packed = side_by_side(groups, front)
    assert packed.head is front.head is not None and packed.n_head == sum(alike)
    every = torch.cat([packed.head.ids.expand(4, -1), packed.ids], 1)
    sequences = [sequence for group in groups for sequence in group]
    for number, row, path in packed.columns:
        assert tuple(every[row, list(path)].tolist()) == sequences[number] and row == number // 3
        for place in range(alike[number % 3], len(path)):
            own = path[place] - packed.n_head
            assert packed.sees[row, own].nonzero()[:, 0].tolist() == sorted(path[: place + 1])
            assert packed.positions[row, own] == place
    assert not packed.sees[:, :-1, -1].any(), "nothing sees the padding"


@pytest.mark.parametrize("n_live", [0, 2, None])
def test_columns_are_kept_or_run_again_and_the_rest_is_padding(n_live: int | None) -> None:
    """With all of a row's columns live, as where the subject begins the prompt, none is kept."""
    groups = [random_sequences(3, seed) for seed in range(4)]
    packed = side_by_side(groups, common_front(groups, (0, 0, 0)))
    padding = packed.ids.shape[1] - 1
    used: list[set[int]] = [set() for _ in groups]
    for _, row, path in packed.columns:
        used[row].update(path)
    live = [sorted(columns)[:n_live] for columns in used]
    found = live_columns(packed, live)
    assert found.kept.dtype == found.again.dtype == torch.long and len(found.kept) == len(found.again) == len(groups)
    for row, columns in enumerate(used):
        kept, again = found.kept[row].tolist(), found.again[row].tolist()
        assert [column for column in again if column != padding] == live[row]
        assert sorted(kept + again) == sorted(columns) + [padding] * (len(kept + again) - len(columns))
    assert n_live is not None or found.kept.shape == (len(groups), 0)


def test_a_common_beginning_leaves_a_token_of_each() -> None:
    assert shared_prefix([(1, 2, 3), (1, 2, 4), (1, 2, 3, 5)]) == 2
    assert shared_prefix([(1, 2), (1, 2)]) == 1
    assert shared_prefix([(1, 2)]) == 0
    assert shared_prefix([(1,), (2, 3)]) == 0


@families
def test_states_are_those_of_a_row_alone(family: str) -> None:
    lm = random_lm(family)
    prompts = [context + r.prompt for context in ("", "It rained all day. ", "It rained. ") for r in requests(4)]
    sequences = lm.format.prompts(prompts)
    at = [len(ids) - 1 - number % 2 for number, ids in enumerate(sequences)]
    sites = [Site("key", 1), Site("block", 3)]
    found = lm.states_at(sequences, at, sites)
    for number, ids in enumerate(sequences):
        alone = lm.states(pad_rows([ids]), sites)
        for site in sites:
            assert relative(found[site][number], alone[site][0, at[number]]) < TOLERANCE[family], (number, site)


@families
@pytest.mark.parametrize("beginning", ["", "long"])
def test_scores_are_the_plain_ones(family: str, beginning: str) -> None:
    """Also behind a common beginning that is long enough to be computed once for all rows."""
    lm, facts = random_lm(family, std=0.2), requests(5)
    start = " ".join(texts(4)[0].split()[:24]) + " " if beginning else ""
    prompts = [start + r.prompt for r in facts]
    shared = shared_prefix(lm.format.prompts(prompts))
    assert (shared >= KEPT_PREFIX) == bool(beginning)
    answers = [(r.target_new, r.target_true, "Middle Dutch") for r in facts]
    expected = torch.stack([plain_scores(lm, [p], [mine])[0] for p, mine in zip(prompts, answers, strict=True)])
    flat = lm.answer_logprobs([p for p in prompts for _ in range(3)], [a for mine in answers for a in mine])
    found = torch.tensor([score.nll_sum for score in flat], dtype=torch.float64).reshape(5, 3)
    assert relative(found, expected) < TOLERANCE[family]
    lm.tokens_per_forward = 30
    again = lm.answer_logprobs([p for p in prompts for _ in range(3)], [a for mine in answers for a in mine])
    assert [s.argmax_ids for s in again] == [s.argmax_ids for s in flat]
