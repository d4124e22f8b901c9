"""What a reader of results should doubt: borrowed numbers, editors without effect, updates that failed, units given up."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.specs.editor_card import borrowed_hparams, writes_weights

Row = Mapping[str, Any]
LITTLE = 0.5
"""Share of a residual that is missing, above which that is told."""
DOUBTS = """
    WITH outcomes AS (
        SELECT run_id, outcome, count(DISTINCT round) AS n, any_value(message) AS why FROM rounds GROUP BY run_id, outcome
    ),
    failed AS (SELECT run_id, count(DISTINCT unit) AS n_given_up FROM failures GROUP BY run_id),
    nan_scores AS (
        SELECT run_id, count(*) AS n_nan FROM fact_scores WHERE is_nan GROUP BY run_id
    ),
    -- Of one edit the share q / (ridge + q) of a residual arrives; less of each of a batch.
    sizes AS (SELECT run_id, median(q) AS q FROM edit_updates GROUP BY run_id),
    missing AS (
        SELECT run_id, median(shortfall) AS shortfall, median(ridge) AS ridge FROM rounds WHERE ridge > 0 GROUP BY run_id
    )
    SELECT
        any_value(shortfall) AS shortfall, any_value(ridge) AS ridge, any_value(q) AS q,
        r.run_id, r.editor, r.model, r.preset, r.mode,
        coalesce(sum(n), 0)::BIGINT AS n_rounds,
        coalesce(sum(n) FILTER (WHERE outcome = 'unchanged'), 0)::BIGINT AS n_unchanged,
        coalesce(sum(n) FILTER (WHERE outcome = 'nan'), 0)::BIGINT AS n_nan_updates,
        coalesce(sum(n) FILTER (WHERE outcome = 'unsolved'), 0)::BIGINT AS n_unsolved,
        any_value(n_nan) AS n_nan_scores, any_value(n_given_up) AS n_given_up
    FROM runs AS r
    LEFT JOIN sizes USING (run_id) LEFT JOIN missing USING (run_id)
    LEFT JOIN outcomes USING (run_id) LEFT JOIN failed USING (run_id) LEFT JOIN nan_scores USING (run_id)
    WHERE r.editor <> 'none'
    GROUP BY r.run_id, r.editor, r.model, r.preset, r.mode
    ORDER BY r.run_id
"""


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """Return what is to be doubted, in sentences, each once.

    Args:
        rows: Of ``DOUBTS``.
    """
    found = [text for row in rows if (text := borrowed_hparams(row["editor"], row["model"], row["preset"])) is not None]
    for row in rows:
        run, rounds = row["run_id"], row["n_rounds"]
        if rounds and row["n_unchanged"] == rounds and writes_weights(row["editor"]):
            found.append(f"{run}: no round changed the model; its editor never fired")
        for count, what in (
            (row["n_nan_updates"], f"of {rounds} rounds gave NaN and were not written"),
            (row["n_unsolved"], f"of {rounds} rounds could not be solved and were not written"),
            (row["n_nan_scores"], "scores are NaN and count as failures"),
            (row["n_given_up"], "units were given up (`palimpsest status` says why)"),
        ):
            if count:
                found.append(f"{run}: {count} {what}")
        if row.get("q") and (row["shortfall"] or 0.0) > LITTLE:
            ridge, q = row["ridge"], row["q"]
            found.append(
                f"{run}: {max(1 - row['shortfall'], 0):.0%} of each residual arrives (median): the ridge {ridge:.4g} is "
                f"{ridge / q:.2g} times the median kᵀC⁻¹k ({q:.4g}); give a smaller one, or a share of it (MEMIT: "
                "preservation_weight: {times_median_q: 0.25})"
            )
    return list(dict.fromkeys(found))
