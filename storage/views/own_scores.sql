-- One row per edit: its probes scored right after its own round (of the baseline: each fact on the unedited model, with
-- no position). A NULL score is a failure, so that a collapsed model
-- is not flattered; means over the prompts of a kind first, as the field does.
WITH per_kind AS (
    SELECT
        run_id,
        fact_id,
        edited_at,
        max(edits_so_far) AS edits_so_far,
        kind,
        avg(CASE
            WHEN kind = 'neighborhood' THEN coalesce(nll_true / n_true < nll_new / n_new, false)
            ELSE coalesce(nll_new / n_new < nll_true / n_true, false)
        END::INT) AS rate,
        avg(CASE
            WHEN kind = 'neighborhood' THEN coalesce(n_correct_true = n_true, false)
            ELSE coalesce(n_correct_new = n_new, false)
        END::INT) AS accuracy
    FROM fact_scores
    WHERE purpose IN ('own', 'baseline')
    GROUP BY run_id, fact_id, edited_at, kind
),
final AS (
    SELECT
        per_kind.run_id,
        per_kind.fact_id,
        per_kind.edited_at,
        per_kind.edits_so_far,
        edits.position,
        max(rate) FILTER (WHERE kind = 'rewrite') AS efficacy,
        max(rate) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
        max(rate) FILTER (WHERE kind = 'neighborhood') AS neighborhood,
        max(accuracy) FILTER (WHERE kind = 'rewrite') AS efficacy_accuracy,
        max(accuracy) FILTER (WHERE kind = 'paraphrase') AS paraphrase_accuracy,
        max(accuracy) FILTER (WHERE kind = 'neighborhood') AS neighborhood_accuracy
    FROM per_kind
    LEFT JOIN edits ON edits.run_id = per_kind.run_id AND edits.fact_id = per_kind.fact_id AND edits.round = per_kind.edited_at
    GROUP BY ALL
)
SELECT * FROM final
