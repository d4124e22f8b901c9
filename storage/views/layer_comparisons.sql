-- Layers of a search compared in pairs, over the facts that were edited at both: two layers of one editor, or two editors at one
-- layer. Of a metric of the first the second's is taken away (`difference`; of S to first order, what each fact adds), with an
-- interval of 95 % as in `comparisons`: half a pair for and half a pair against are added. `verdict`: `higher` or `lower`
-- (the first), or `not told apart`; it is of each pair alone, so of a hundred pairs that do not differ five are told apart.
--
-- unique: [run_id, layer, other_run_id, other_layer, metric]
-- not_null: [run_id, layer, other_run_id, other_layer, metric, difference, low, high, n_pairs, verdict]
-- accepted: {verdict: [higher, lower, not told apart]}
WITH pairs AS (
    SELECT
        a.model, a.protocol, a.run_id, a.editor, a.layer, b.run_id AS other_run_id, b.editor AS other_editor, b.layer AS other_layer,
        fact_id, a.es, a.ps, a.ns, b.es AS other_es, b.ps AS other_ps, b.ns AS other_ns
    FROM layer_rates AS a JOIN layer_rates AS b USING (fact_id)
    WHERE (a.run_id = b.run_id AND a.layer < b.layer)
        OR (a.model = b.model AND a.protocol = b.protocol AND a.layer = b.layer AND (a.editor, a.run_id) < (b.editor, b.run_id))
),
means AS (
    SELECT
        run_id, layer, other_run_id, other_layer, count(*) AS n, count(es) AS n_es, count(ps) AS n_ps, count(ns) AS n_ns,
        avg(es) AS m_es, avg(ps) AS m_ps, avg(ns) AS m_ns, harmonic_mean(m_es, m_ps, m_ns) AS s,
        avg(other_es) AS other_m_es, avg(other_ps) AS other_m_ps, avg(other_ns) AS other_m_ns,
        harmonic_mean(other_m_es, other_m_ps, other_m_ns) AS other_s
    FROM pairs GROUP BY ALL
),
with_s AS (
    SELECT
        *, value_in_s(s, n, es, m_es, n_es, ps, m_ps, n_ps, ns, m_ns, n_ns) AS in_s,
        value_in_s(other_s, n, other_es, other_m_es, n_es, other_ps, other_m_ps, n_ps, other_ns, other_m_ns, n_ns) AS other_in_s
    FROM pairs JOIN means USING (run_id, layer, other_run_id, other_layer)
),
differences AS (
    SELECT
        model, protocol, run_id, editor, layer, other_run_id, other_editor, other_layer, metric,
        round(values_of[1] - values_of[2], 12) AS difference
    FROM (
        SELECT
            *, unnest(['efficacy', 'paraphrase', 'neighborhood', 'score']) AS metric,
            unnest([[es, other_es], [ps, other_ps], [ns, other_ns], [in_s, other_in_s]]) AS values_of
        FROM with_s
    )
    WHERE difference IS NOT NULL
),
compared AS (
    SELECT
        model, protocol, run_id, editor, layer, other_run_id, other_editor, other_layer, metric,
        count(*) AS n_pairs, avg(difference) AS mean, sum(difference) / (n_pairs + 2) AS middle,
        half_width(error_of_pairs(n_pairs, sum(difference ** 2), middle), n_pairs - 1) AS half
    FROM differences GROUP BY ALL HAVING count(*) > 1
)
SELECT
    model, protocol, editor, layer, other_editor, other_layer, metric, mean AS difference,
    greatest(middle - half, -1) AS low, least(middle + half, 1) AS high, n_pairs,
    CASE WHEN middle - half > 0 THEN 'higher' WHEN middle + half < 0 THEN 'lower' ELSE 'not told apart' END AS verdict,
    run_id, other_run_id
FROM compared
ORDER BY model, protocol, metric, editor, other_editor, layer, other_layer
