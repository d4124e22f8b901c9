-- kept
-- Each edit's value under each metric of `setting_summary`, whose means are the metrics: its rates right after its own round
-- (`scored` own), and on the final model. S is no mean over edits; an edit's value is S, and what its rates add to it to first
-- order (so that the spread of these values is that of S). `forgotten`: of the edits that were right when applied and that at
-- least `forgotten_age` further edits followed, on the final model; the age is the least at which every setting of the pool
-- that has made as many edits has such edits, so that all are compared on the same early ones.
WITH rates AS (
    SELECT run_id, 'own' AS scored, fact_id, efficacy, paraphrase, neighborhood FROM own_rates JOIN run_setting USING (run_id)
    UNION ALL
    SELECT run_id, 'final', fact_id, efficacy, paraphrase, neighborhood FROM final_rates JOIN run_setting USING (run_id)
),
means AS (
    SELECT
        run_id, scored, count(*) AS n,
        avg(efficacy) AS es, avg(paraphrase) AS ps, avg(neighborhood) AS ns, harmonic_mean(es, ps, ns) AS s,
        share_in_s(s, es, n, count(efficacy)) AS of_es,
        share_in_s(s, ps, n, count(paraphrase)) AS of_ps,
        share_in_s(s, ns, n, count(neighborhood)) AS of_ns
    FROM rates
    GROUP BY run_id, scored
),
long AS (
    SELECT
        run_id, scored, fact_id,
        unnest([
            {'metric': 'efficacy', 'value': efficacy},
            {'metric': 'paraphrase', 'value': paraphrase},
            {'metric': 'neighborhood', 'value': neighborhood},
            {'metric': 'score', 'value': s + coalesce(of_es * (efficacy - es), 0) + coalesce(of_ps * (paraphrase - ps), 0)
                + coalesce(of_ns * (neighborhood - ns), 0)}
        ], recursive := true)
    FROM rates JOIN means USING (run_id, scored)
)
SELECT run_id, scored, metric, fact_id, value, NULL::BIGINT AS from_age FROM long WHERE value IS NOT NULL
UNION ALL
SELECT run_id, 'final', 'forgotten', fact_id, wrong_now::INT, common_age
FROM last_checks JOIN common_ages USING (run_id)
WHERE was_right AND age >= common_age
UNION ALL
SELECT run_id, 'own', metric, fact_id, value, NULL FROM joint_values JOIN run_setting USING (run_id) WHERE value IS NOT NULL
UNION ALL
SELECT run_id, 'final', 'benchmark_accuracy', questions_run_id || ' ' || example_id, avg(correct::INT), NULL
FROM benchmark_answers JOIN run_setting USING (run_id) SEMI JOIN last_rounds USING (run_id, scored_at)
GROUP BY run_id, questions_run_id, example_id
