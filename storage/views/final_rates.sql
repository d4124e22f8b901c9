-- kept
-- own_rates, on the model as the last round left it, as far as the last checkpoint stands there.
WITH outcomes AS (
    SELECT
        *,
        prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new)::INT AS prefers_new,
        prefers_true(nll_new, n_new, nll_true, n_true)::INT AS prefers_true,
        is_argmax(n_correct_new, n_new)::INT AS new_is_argmax,
        is_argmax(n_correct_true, n_true)::INT AS true_is_argmax
    FROM fact_scores SEMI JOIN last_rounds USING (run_id, scored_at)
    WHERE purpose = 'retention'
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
