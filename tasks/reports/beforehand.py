"""What was found before any edit, in sentences: what a model knows, and which layer a search prefers."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
KNOWLEDGE = """
    WITH relations AS (
        SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY (n_facts >= 20) DESC, first_token DESC, relation) AS place
        FROM knowledge_summary
    )
    SELECT
        model, sum(n_facts)::BIGINT AS n_facts, round(sum(n_facts * first_token))::BIGINT AS first_token,
        round(sum(n_facts * all_tokens))::BIGINT AS all_tokens, round(sum(n_facts * free_text))::BIGINT AS free_text,
        count(*) AS n_relations,
        list({'relation': relation, 'rate': first_token} ORDER BY place) FILTER (WHERE place <= 3) AS best
    FROM relations GROUP BY run_id, model ORDER BY model, run_id
"""
LAYERS = """
    WITH best AS (
        FROM layer_summary WHERE score IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY score DESC, layer) = 1
    ),
    pairs AS (FROM layer_comparisons WHERE metric = 'score' AND run_id = other_run_id),
    others AS (
        SELECT run_id, layer, other_layer AS other, verdict FROM pairs
        UNION ALL
        SELECT run_id, other_layer, layer, verdict FROM pairs
    )
    SELECT
        best.model, best.editor, best.layer, best.score, best.score_low AS low, best.score_high AS high,
        n_edits AS n_facts, list(other ORDER BY other) FILTER (WHERE verdict = 'not told apart') AS alike
    FROM best LEFT JOIN others USING (run_id, layer)
    GROUP BY ALL ORDER BY model, editor
"""


def knowledge_sentences(rows: Sequence[Row]) -> list[str]:
    """Return what each model says of the facts that it was asked."""
    found = []
    for row in rows:
        best = ", ".join(f"{each['relation']} ({each['rate']:.2f})" for each in row["best"] if each["relation"])
        of = f"; best of {best}" if best and row["n_relations"] > 1 else ""
        found.append(
            f"Of {row['n_facts']} facts {row['model']} says the first token of {row['first_token']}, all tokens of "
            f"{row['all_tokens']}, and the answer somewhere in free text of {row['free_text']}{of} (view knowledge_summary)."
        )
    return found


def layer_sentences(rows: Sequence[Row]) -> list[str]:
    """Return which layer each search prefers."""
    found = []
    for row in rows:
        alike = ", ".join(map(str, row["alike"] or ()))
        than = f"; not told apart from {alike}" if alike else ""
        found.append(
            f"{row['editor']} on {row['model']}: layer {row['layer']} ({row['score']:.3f}, 95 % {row['low']:.3f} to "
            f"{row['high']:.3f}, {row['n_facts']} facts{than}; views layer_summary, layer_comparisons)."
        )
    return found


def before_any_edit(knowledge: Sequence[Row], layers: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Return the questions that were asked before any edit, each with what was found."""
    asked = (
        ("What did the model know?", knowledge_sentences(knowledge)),
        ("Which layer has the highest S, of single edits?", layer_sentences(layers)),
    )
    return [part for part in asked if part[1]]
