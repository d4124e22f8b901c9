-- One row per edit: its probes scored right after its own round (of the baseline: each fact on the unedited model). A NULL
-- score is a failure, so that a collapsed model is not flattered; means over the prompts of a kind.
WITH outcomes AS (
    SELECT
        run_id, fact_id, edited_at, edits_so_far, kind,
        CASE
            WHEN kind = 'neighborhood' THEN coalesce(nll_true / n_true < nll_new / n_new, false)
            ELSE coalesce(nll_new / n_new < nll_true / n_true, false)
        END::INT AS preferred,
        CASE
            WHEN kind = 'neighborhood' THEN coalesce(n_correct_true = n_true, false)
            ELSE coalesce(n_correct_new = n_new, false)
        END::INT AS correct
    FROM fact_scores
    WHERE purpose IN ('own', 'baseline')
)
SELECT
    run_id, fact_id, edited_at,
    max(edits_so_far) AS edits_so_far,
    avg(preferred) FILTER (WHERE kind = 'rewrite') AS efficacy,
    avg(preferred) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
    avg(preferred) FILTER (WHERE kind = 'neighborhood') AS neighborhood,
    avg(correct) FILTER (WHERE kind = 'rewrite') AS efficacy_accuracy,
    avg(correct) FILTER (WHERE kind = 'paraphrase') AS paraphrase_accuracy,
    avg(correct) FILTER (WHERE kind = 'neighborhood') AS neighborhood_accuracy
FROM outcomes
GROUP BY run_id, fact_id, edited_at
