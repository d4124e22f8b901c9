-- Layer search: scores of independent edits of each layer, means over edits of the mean over their prompts.
--
-- unique: [run_id, editor, layer]
-- not_null: [run_id, model, editor, layer, n_edits]
-- rates: [efficacy, paraphrase, neighborhood, score]
WITH per_kind AS (
    SELECT
        run_id, model, editor, protocol, layer, fact_id, kind,
        avg(CASE
            WHEN kind = 'neighborhood' THEN is_likelier(nll_true, n_true, nll_new, n_new)
            ELSE is_likelier(nll_new, n_new, nll_true, n_true)
        END::INT) AS rate
    FROM layer_scores
    GROUP BY ALL
),
rates AS (
    SELECT
        run_id, model, editor, protocol, layer,
        count(DISTINCT fact_id) AS n_edits,
        avg(rate) FILTER (WHERE kind = 'rewrite') AS efficacy,
        avg(rate) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
        avg(rate) FILTER (WHERE kind = 'neighborhood') AS neighborhood
    FROM per_kind
    GROUP BY ALL
),
final AS (
    SELECT *, harmonic_mean(efficacy, paraphrase, neighborhood) AS score FROM rates
)
SELECT * FROM final ORDER BY model, editor, layer
