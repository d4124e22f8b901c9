-- Layer search: scores of independent edits of each layer, means over edits of the mean over their prompts, each with an
-- interval of 95 % over the edits (as in `setting_summary`).
--
-- unique: [run_id, editor, layer]
-- not_null: [run_id, model, editor, layer, n_edits]
-- rates: [efficacy, paraphrase, neighborhood, score, efficacy_low, efficacy_high, score_low, score_high]
WITH rates AS (
    SELECT
        run_id, model, editor, protocol, layer, count(*) AS n_edits,
        count(es) AS n_es, count(ps) AS n_ps, count(ns) AS n_ns,
        avg(es) AS efficacy, avg(ps) AS paraphrase, avg(ns) AS neighborhood,
        harmonic_mean(efficacy, paraphrase, neighborhood) AS score,
        answers_of_facts(count(es), efficacy, var_pop(es)) AS es_answers,
        answers_of_facts(count(ps), paraphrase, var_pop(ps)) AS ps_answers,
        answers_of_facts(count(ns), neighborhood, var_pop(ns)) AS ns_answers
    FROM layer_rates
    GROUP BY ALL
),
spread AS (
    -- The variance of what each edit adds to S, to first order.
    SELECT
        run_id, editor, layer,
        var_pop(
            coalesce((es - efficacy) / efficacy ** 2 * n_edits / n_es, 0)
            + coalesce((ps - paraphrase) / paraphrase ** 2 * n_edits / n_ps, 0)
            + coalesce((ns - neighborhood) / neighborhood ** 2 * n_edits / n_ns, 0)
        ) * any_value(score) ** 4 / 9 AS variance
    FROM layer_rates JOIN rates USING (run_id, editor, layer)
    WHERE score > 0
    GROUP BY ALL
)
SELECT * EXCLUDE (s_answers) FROM (SELECT
    run_id, model, editor, protocol, layer, n_edits, efficacy, paraphrase, neighborhood, score,
    rate_low(efficacy, es_answers) AS efficacy_low, rate_high(efficacy, es_answers) AS efficacy_high,
    rate_low(paraphrase, ps_answers) AS paraphrase_low, rate_high(paraphrase, ps_answers) AS paraphrase_high,
    rate_low(neighborhood, ns_answers) AS neighborhood_low, rate_high(neighborhood, ns_answers) AS neighborhood_high,
    -- S near 0 is about three times the rate that is.
    answers_of_facts(CASE WHEN score > 0 THEN n_edits ELSE n_edits / 3 END, score, coalesce(variance, 0)) AS s_answers,
    rate_low(score, s_answers) AS score_low, rate_high(score, s_answers) AS score_high
FROM rates LEFT JOIN spread USING (run_id, editor, layer))
ORDER BY model, editor, layer
