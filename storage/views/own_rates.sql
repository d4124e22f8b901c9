-- kept
-- One row per edit: its probes scored right after its own round (of the baseline: each fact on the unedited model). A NULL
-- score is a failure, so that a collapsed model is not flattered; means over the prompts of a kind. A probe that was scored
-- twice is not looked for: it weighs the same in its mean, and a million rows take three times as long with the search.
WITH outcomes AS (
    SELECT
        *,
        prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new)::INT AS prefers_new,
        prefers_true(nll_new, n_new, nll_true, n_true)::INT AS prefers_true,
        is_argmax(n_correct_new, n_new)::INT AS new_is_argmax,
        is_argmax(n_correct_true, n_true)::INT AS true_is_argmax
    FROM fact_scores
    WHERE purpose IN ('own', 'baseline')
)
SELECT
    run_id, fact_id, edited_at,
    max(edits_so_far) AS edits_so_far,
    avg(prefers_new) FILTER (WHERE kind = 'rewrite') AS efficacy,
    avg(prefers_new) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
    avg(prefers_true) FILTER (WHERE kind = 'neighborhood') AS neighborhood,
    avg(new_is_argmax) FILTER (WHERE kind = 'rewrite') AS efficacy_accuracy,
    avg(new_is_argmax) FILTER (WHERE kind = 'paraphrase') AS paraphrase_accuracy,
    avg(true_is_argmax) FILTER (WHERE kind = 'neighborhood') AS neighborhood_accuracy
FROM outcomes
GROUP BY run_id, fact_id, edited_at
