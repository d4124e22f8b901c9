-- step
-- Of each edit of a layer search, the mean over its prompts of each kind.
SELECT
    run_id, model, editor, protocol, layer, fact_id,
    avg(holds) FILTER (WHERE kind = 'rewrite') AS es,
    avg(holds) FILTER (WHERE kind = 'paraphrase') AS ps,
    avg(holds) FILTER (WHERE kind = 'neighborhood') AS ns
FROM (
    SELECT
        *, CASE
            WHEN kind = 'neighborhood' THEN prefers_true(nll_new, n_new, nll_true, n_true)
            ELSE prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new)
        END::INT AS holds
    FROM layer_scores
)
GROUP BY ALL
