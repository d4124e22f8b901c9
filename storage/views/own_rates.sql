-- One row per edit: its probes scored right after its own round (of the baseline: each fact on the unedited model). A NULL
-- score is a failure, so that a collapsed model is not flattered; means over the prompts of a kind.
WITH outcomes AS (
    SELECT
        *, nll_new / n_new AS mean_new, nll_true / n_true AS mean_true,
        coalesce(n_correct_new = n_new, false)::INT AS new_is_argmax,
        coalesce(n_correct_true = n_true, false)::INT AS true_is_argmax
    FROM fact_scores
    WHERE purpose IN ('own', 'baseline')
)
SELECT
    run_id, fact_id, edited_at,
    max(edits_so_far) AS edits_so_far,
    avg(coalesce(mean_new < mean_true, false)::INT) FILTER (WHERE kind = 'rewrite') AS efficacy,
    avg(coalesce(mean_new < mean_true, false)::INT) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
    avg(coalesce(mean_true < mean_new, false)::INT) FILTER (WHERE kind = 'neighborhood') AS neighborhood,
    avg(new_is_argmax) FILTER (WHERE kind = 'rewrite') AS efficacy_accuracy,
    avg(new_is_argmax) FILTER (WHERE kind = 'paraphrase') AS paraphrase_accuracy,
    avg(true_is_argmax) FILTER (WHERE kind = 'neighborhood') AS neighborhood_accuracy
FROM outcomes
GROUP BY run_id, fact_id, edited_at
