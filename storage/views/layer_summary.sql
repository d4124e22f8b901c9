-- Layer search: scores of independent edits of each layer, means over edits of the mean over their prompts.
WITH per_kind AS (
    SELECT
        run_id, model, editor, protocol, layer, fact_id, kind,
        avg(CASE
            WHEN kind = 'neighborhood' THEN coalesce(nll_true / n_true < nll_new / n_new, false)
            ELSE coalesce(nll_new / n_new < nll_true / n_true, false)
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
    SELECT
        *,
        CASE
            WHEN least(efficacy, paraphrase, neighborhood) <= 0 THEN 0
            ELSE 3 / (1 / efficacy + 1 / paraphrase + 1 / neighborhood)
        END AS score
    FROM rates
)
SELECT * FROM final ORDER BY model, editor, layer
