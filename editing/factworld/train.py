"""Grow a bundled model from scratch: ``python -m editing.factworld.train factworld-gpt2 --out DIR``.

A plain language model of this size looks facts up at the last prompt token and leaves the subject's last token without
any effect, so that locate-then-edit methods have nothing to edit.  Three additions, used in training only, form the
site that large models show: an auxiliary loss that the objects be readable at the subject's last token after block 3;
masks that hide a subject from later tokens in blocks 0-2; and steps that swap two subjects' states there and ask for
the other's object.  Inference is the unmodified Hugging Face class.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from editing.factworld.rows import ROW_TOKENS, Row, RowWriter
from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.world import Fact, World
from editing.model.families import Family, family_of, submodule

MASKED_BLOCKS = 3


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Everything that determines a bundled model's weights, up to rounding."""

    family: str
    d_model: int = 96
    n_layers: int = 6
    n_heads: int = 4
    steps: int = 2600
    swap_steps: int = 500
    warm_facts: int = 80
    """The first steps see only this many facts; without it fact learning sits on a plateau."""
    warm_steps: int = 350
    batch_rows: int = 8
    lr: float = 3e-3
    site_weight: float = 0.5
    """Weight of the auxiliary loss; 0 together with ``mask_rows`` 0 and ``swap_steps`` 0 is a plain language model."""
    mask_rows: float = 0.9
    """Share of rows in which later tokens cannot see a subject in the first blocks."""
    seed: int = 0

    @property
    def bos(self) -> bool:
        return self.family == "llama"

    def plain(self) -> "Growth":
        """Return the growth without the site-forming steps."""
        return replace(self, site_weight=0.0, mask_rows=0.0, swap_steps=0)


GROWTHS: dict[str, Growth] = {
    "factworld-gpt2": Growth(family="gpt2"),
    "factworld-llama": Growth(family="llama"),
    "factworld-tiny": Growth(family="llama", d_model=64, steps=1300, swap_steps=200, lr=4e-3),
}
TINY_WORLD = {"n_known": 300}


def world_of(name: str) -> World:
    """Return the world of which the bundled model ``name`` has learnt the known facts."""
    return World(**TINY_WORLD) if name == "factworld-tiny" else World()


def build_model(growth: Growth, vocab_size: int) -> PreTrainedModel:
    """Return an untrained model of the growth's shape; 0.02 as initial scale is far too small at this width."""
    spread = 0.8 / math.sqrt(growth.d_model)
    if growth.family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_positions=ROW_TOKENS,
                n_embd=growth.d_model,
                n_layer=growth.n_layers,
                n_head=growth.n_heads,
                initializer_range=spread,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=0,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            max_position_embeddings=ROW_TOKENS,
            hidden_size=growth.d_model,
            intermediate_size=growth.d_model * 5 // 2,
            num_hidden_layers=growth.n_layers,
            num_attention_heads=growth.n_heads,
            num_key_value_heads=growth.n_heads,
            initializer_range=spread,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def train(
    growth: Growth, world: World, *, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> PreTrainedModel:
    """Return a model that knows ``world.trained_facts`` and the downstream tasks.

    ``on_step`` receives the number of finished steps and the last loss.
    """
    torch.manual_seed(growth.seed)
    tokenizer = build_tokenizer(bos=growth.bos)
    model = build_model(growth, len(tokenizer)).train()
    family = family_of(model.config)
    writer = RowWriter(world, tokenizer, bos=growth.bos, seed=growth.seed)
    rng = random.Random(f"train-{growth.seed}")
    first_ids = {fact.object: writer.first_id(fact.object) for fact in world.trained_facts}
    objects: dict[str, list[int]] = {fact.subject: [] for fact in world.trained_facts}
    for fact in world.trained_facts:
        objects[fact.subject].append(first_ids[fact.object])
    optimizer = torch.optim.AdamW(model.parameters(), lr=growth.lr, betas=(0.9, 0.98), weight_decay=0.01)
    total = growth.steps + growth.swap_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, total=total))
    by_relation = _by_relation(world.trained_facts)
    for step in range(total):
        warm = step < growth.warm_steps
        facts = world.trained_facts[: growth.warm_facts] if warm else world.trained_facts
        rows = writer.batch(growth.batch_rows, facts)
        loss = _row_loss(model, family, rows, objects, growth, rng)
        if step >= growth.steps:
            loss = loss + _swap_loss(model, family, writer, rng.choice(by_relation), rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(step + 1, float(loss.detach()))
    return model.eval()


def _rate(step: int, *, total: int) -> float:
    if step < 60:
        return (step + 1) / 60
    flat = total // 2
    return 1.0 if step < flat else max(0.02, 1.0 - 0.98 * (step - flat) / (total - flat))


def _by_relation(facts: tuple[Fact, ...]) -> list[list[Fact]]:
    groups: dict[tuple[str, int], list[Fact]] = {}
    for fact in facts:
        groups.setdefault((fact.relation.name, len(fact.subject.split())), []).append(fact)
    return [group for group in groups.values() if len(group) > 1]


def _padded(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Return ids [row, token] padded with 0 and loss weights [row, token] padded with 0."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    weights = torch.tensor([row.weights + [0.0] * (width - len(row.weights)) for row in rows])
    return ids, weights


def _row_loss(
    model: PreTrainedModel,
    family: Family,
    rows: list[Row],
    objects: dict[str, list[int]],
    growth: Growth,
    rng: random.Random,
) -> Tensor:
    ids, weights = _padded(rows)
    masked = [rng.random() < growth.mask_rows for _ in rows]
    with _hidden_subjects(model, family, rows, masked, ids.shape[1]):
        out = model(input_ids=ids, output_hidden_states=growth.site_weight > 0)
    losses = functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    loss = (losses * wanted).sum() / wanted.sum()
    spans = [(r, last, fact) for r, row in enumerate(rows) for _, last, fact in row.spans]
    if growth.site_weight > 0 and spans:
        at = torch.tensor([[r, last] for r, last, _ in spans])
        state = out.hidden_states[MASKED_BLOCKS][at[:, 0], at[:, 1]]
        logits = model.get_output_embeddings()(submodule(model, family.final_norm)(state))
        target = torch.zeros_like(logits)
        for row, (_, _, fact) in enumerate(spans):
            for token in objects[fact.subject]:
                target[row, token] += 1.0 / len(objects[fact.subject])
        loss = loss + growth.site_weight * functional.cross_entropy(logits, target)
    return loss


@contextmanager
def _hidden_subjects(
    model: PreTrainedModel, family: Family, rows: list[Row], masked: list[bool], width: int
) -> Iterator[None]:
    """Inside, tokens after a subject cannot attend to it in the first blocks, for the rows that are ``masked``."""
    allowed = torch.ones(len(rows), 1, width, width, dtype=torch.bool).tril()
    for index, row in enumerate(rows):
        for start, last, _ in row.spans if masked[index] else ():
            allowed[index, 0, last + 1 :, start : last + 1] = False
    bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)

    def hide(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "attention_mask": bias}

    (stack,) = family.stacks
    blocks = submodule(model, stack.blocks)[:MASKED_BLOCKS] if any(masked) else []
    handles = [submodule(block, stack.attention).register_forward_pre_hook(hide, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _swap_loss(
    model: PreTrainedModel, family: Family, writer: RowWriter, group: list[Fact], rng: random.Random
) -> Tensor:
    """Loss of the other's object after the states of two subjects of one relation have been swapped."""
    pairs = [rng.sample(group, 2) for _ in range(4)]
    template = rng.choice(group[0].relation.templates)
    rows, answers = [], []
    for one, two in pairs:
        prefix = rng.choice(("", "It rained all day.", "The train was late again."))
        for fact, other in ((one, two), (two, one)):
            row = writer.fact_row(prefix, template, fact)
            answer = writer.fact_row(prefix, template, other)
            length = len(row.ids) - writer.answer_length(fact)
            rows.append(Row(row.ids[:length] + answer.ids[length:], [0.0] * length + [1.0] * len(answer.ids[length:])))
            rows[-1].spans = row.spans
            answers.append(other)
    ids, weights = _padded(rows)
    lasts = torch.tensor([row.spans[0][1] for row in rows])
    index = torch.arange(len(rows))
    partner = index + 1 - 2 * (index % 2)

    def swap(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        swapped = output.clone()
        swapped[index, lasts] = output[partner, lasts]
        return swapped

    block = submodule(model, family.stacks[0].blocks)[rng.randrange(MASKED_BLOCKS)]
    handle = block.register_forward_hook(swap)
    try:
        logits = model(input_ids=ids).logits
    finally:
        handle.remove()
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()
