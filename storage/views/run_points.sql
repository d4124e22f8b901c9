-- step
-- What each run adds to each point of `setting_summary` and `setting_curve`: the mean of n values (of facts, questions, texts)
-- and their population variance, which is NULL where a run gives one number. `bounded`: the mean is a rate in [0, 1]. Curves of
-- benchmarks and texts begin with what the unedited model made of them.
WITH shown AS (
    SELECT run_id AS source, run_id FROM runs WHERE editor <> 'none'
    UNION ALL
    SELECT baseline_run_id, run_id FROM runs WHERE editor <> 'none'
),
-- Each benchmark with the metric that its definition names first. One that is asked in two ways has two names.
asked AS (
    SELECT
        b.*, coalesce(main_metric, CASE WHEN f1 IS NULL THEN 'accuracy' ELSE 'f1' END) AS main_metric,
        benchmark || ', ' || n_shots || ' shots' || CASE
            WHEN count(DISTINCT questions_run_id) OVER (PARTITION BY benchmark, n_shots) = 1 THEN ''
            ELSE ' (' || right(questions_run_id, 4) || ')'
        END AS name
    FROM benchmark_metrics AS b
    JOIN run_setting USING (run_id)
    LEFT JOIN (
        SELECT run_id AS questions_run_id, any_value(spec->'definition'->'metrics'->>0) AS main_metric
        FROM commits WHERE kind = 'questions' GROUP BY run_id
    ) USING (questions_run_id)
    WHERE part IS NULL
)
SELECT
    run_id, 'summary' AS curve, '' AS name, scored, metric, run_latest.edits, true AS bounded,
    count(*) AS n, avg(value) AS mean, var_pop(value) AS variance, any_value(from_age) AS from_age
FROM fact_values JOIN run_latest USING (run_id)
GROUP BY ALL
UNION ALL
SELECT
    run_id, 'summary', '', 'final', 'benchmark_f1', last.edits, true,
    sum(n_examples) AS n, avg(f1) AS mean, n * sum(f1_stderr ** 2) / count(*) ** 2, NULL
FROM (
    SELECT * FROM benchmark_metrics SEMI JOIN last_rounds USING (run_id, scored_at) WHERE part IS NULL AND f1 IS NOT NULL
) AS last
GROUP BY run_id, last.edits
UNION ALL
SELECT run_id, 'summary', '', 'final', 'drift', edits, false, 1, max(drift), NULL, NULL
FROM (
    SELECT run_id, last(drift ORDER BY round) AS drift, max(edits_so_far) AS edits FROM rounds GROUP BY run_id, parameter
)
GROUP BY run_id, edits HAVING max(drift) IS NOT NULL
UNION ALL
SELECT run_id, 'summary', '', 'own', 'mean_residual', max(edits_so_far), false, 1, avg(mean_residual), NULL, NULL
FROM rounds WHERE mean_residual IS NOT NULL GROUP BY run_id
UNION ALL
SELECT run_id, 'editing', 'window ' || window_edits, 'own', metric, edits, true, n, mean, variance, NULL
FROM (
    SELECT run_id, window_edits, edits, n_edits AS n, unnest([
        {'metric': 'efficacy', 'mean': efficacy, 'variance': efficacy_variance},
        {'metric': 'paraphrase', 'mean': paraphrase, 'variance': paraphrase_variance},
        {'metric': 'neighborhood', 'mean': neighborhood, 'variance': neighborhood_variance}
    ], recursive := true)
    FROM editing_windows WHERE edits IS NOT NULL
)
WHERE mean IS NOT NULL
UNION ALL
SELECT run_id, 'forgetting', '', 'checkpoint', metric, edits, true, n, mean, mean * (1 - mean), NULL
FROM (
    SELECT run_id, edits, unnest([
        {'metric': 'forgotten', 'n': n_right_when_applied, 'mean': forgotten},
        {'metric': 'forgotten_ever', 'n': n_right_when_applied, 'mean': forgotten_ever},
        {'metric': 'retention', 'n': n_scored, 'mean': retention},
        {'metric': 'retention_accuracy', 'n': n_scored, 'mean': retention_accuracy}
    ], recursive := true)
    FROM check_rates
)
WHERE mean IS NOT NULL
UNION ALL
SELECT run_id, 'downstream', name, 'checkpoint', metric, edits, metric <> 'mcc', n_examples, mean, n_examples * error ** 2, NULL
FROM (
    SELECT run_id, edits, n_examples, name, unnest([
        {'metric': 'accuracy', 'mean': accuracy, 'error': accuracy_stderr},
        {'metric': 'f1', 'mean': f1, 'error': f1_stderr},
        {'metric': 'f1_weighted', 'mean': f1_weighted, 'error': f1_weighted_stderr},
        {'metric': 'mcc', 'mean': mcc, 'error': mcc_stderr},
        {'metric': 'mean_value', 'mean': mean_value, 'error': mean_value_stderr}
    ], recursive := true)
    FROM asked
)
WHERE mean IS NOT NULL
UNION ALL
SELECT
    run_id, 'benchmarks', name || ': ' || main_metric, 'checkpoint', 'main', edits, main_metric <> 'mcc', n_examples,
    CASE main_metric
        WHEN 'f1' THEN f1 WHEN 'f1_weighted' THEN f1_weighted WHEN 'mcc' THEN mcc WHEN 'token_f1' THEN mean_value ELSE accuracy
    END AS mean,
    n_examples * CASE main_metric
        WHEN 'f1' THEN f1_stderr WHEN 'f1_weighted' THEN f1_weighted_stderr WHEN 'mcc' THEN mcc_stderr
        WHEN 'token_f1' THEN mean_value_stderr ELSE accuracy_stderr
    END ** 2, NULL
FROM asked
WHERE mean IS NOT NULL
UNION ALL
SELECT shown.run_id, 'free texts', '', 'checkpoint', metric, edits, false, n_texts - n_lost, mean, variance, NULL
FROM (
    SELECT run_id, edits_so_far AS edits, count(*) AS n_texts, count(*) FILTER (WHERE text IS NULL) AS n_lost, unnest([
        {'metric': 'entropy', 'mean': avg(entropy), 'variance': var_pop(entropy)},
        {'metric': 'repetition', 'mean': avg(repetition), 'variance': var_pop(repetition)}
    ], recursive := true)
    FROM generations GROUP BY run_id, edits_so_far
) AS written JOIN shown ON written.run_id = shown.source
WHERE mean IS NOT NULL
UNION ALL
SELECT shown.run_id, 'perplexity', '', 'checkpoint', 'perplexity', edits, false, 1, perplexity, NULL, NULL
FROM perplexity_curve AS p JOIN shown ON p.run_id = shown.source WHERE perplexity IS NOT NULL
UNION ALL
SELECT run_id, 'drift', parameter, 'checkpoint', metric, edits, false, 1, mean, NULL, NULL
FROM (
    SELECT run_id, parameter, edits_so_far AS edits, unnest([
        {'metric': 'drift', 'mean': drift},
        {'metric': 'drift_per_value', 'mean': drift_per_value},
        {'metric': 'update_norm', 'mean': update_norm}
    ], recursive := true)
    FROM rounds
)
WHERE mean IS NOT NULL
