-- Settings compared in pairs: of one model, data set and mode, after equally many edits, over the facts that both have edited as
-- parts of the same samples (`n_pairs` different facts, two or more; `n_differ` with different values; a fact's value is its mean
-- over seeds and samples). Of `benchmark_accuracy` the pairs are the questions of all benchmarks, each of which counts once.
-- `difference` is that of the first setting to the second, with an interval of 95 % (half a pair for and half a pair against are
-- added; over samples, where their differences differ by more than their facts explain; wider by the spread between seeds).
-- `p`: two-sided, by flipping the signs of pairs (of S, which is no mean, by Student's t); of Student's t, too, where that is
-- larger and samples differ or there are seeds.
-- `p_holm`: the same, when all comparisons of one model, data set, mode and number of edits are made at once (Holm).
-- `verdict`: `higher` or `lower` (the first), or `not told apart`. `differs_in`: in what the settings differ.
--
-- unique: [setting, other_setting, edits, scored, metric]
-- not_null: [setting, other_setting, edits, scored, metric, difference, low, high, p, p_holm, n_pairs, verdict]
-- rates: [p, p_holm]
-- accepted: {verdict: [higher, lower, not told apart]}
WITH ordered AS (
    SELECT *, row_number() OVER (ORDER BY editor, batch_size, layers, setting) AS place FROM settings
),
values_of AS (
    SELECT place, run_setting.pool, draw, run_latest.edits, scored, metric, fact_id, avg(value) AS value, max(from_age) AS from_age
    FROM fact_values JOIN run_setting USING (run_id) JOIN run_latest USING (run_id) JOIN ordered USING (setting)
    -- Shares of tokens are what joint edits are judged by; of sequences they would say again what the rates do.
    WHERE metric <> 'score' AND (run_setting.mode = 'independent' OR metric NOT LIKE '%_success')
    GROUP BY ALL
),
rate_pairs AS (
    SELECT
        a.place, b.place AS other_place, a.pool, a.draw, a.edits, a.scored, a.metric, a.fact_id, a.value, b.value AS other_value,
        a.from_age
    FROM values_of AS a JOIN values_of AS b
        ON b.pool = a.pool AND b.draw = a.draw AND b.edits = a.edits AND b.scored = a.scored AND b.metric = a.metric
        AND b.fact_id = a.fact_id AND b.place > a.place
),
-- S is of the facts that both have: of what each has looked at alone it would compare different ones.
kinds AS (
    SELECT
        place, other_place, pool, draw, edits, scored, fact_id,
        any_value(value) FILTER (WHERE metric = 'efficacy') AS es, any_value(other_value) FILTER (WHERE metric = 'efficacy') AS other_es,
        any_value(value) FILTER (WHERE metric = 'paraphrase') AS ps,
        any_value(other_value) FILTER (WHERE metric = 'paraphrase') AS other_ps,
        any_value(value) FILTER (WHERE metric = 'neighborhood') AS ns,
        any_value(other_value) FILTER (WHERE metric = 'neighborhood') AS other_ns
    FROM rate_pairs WHERE metric IN ('efficacy', 'paraphrase', 'neighborhood')
    GROUP BY ALL
),
kind_means AS (
    SELECT
        place, other_place, pool, draw, edits, scored, count(*) AS n, count(es) AS n_es, count(ps) AS n_ps, count(ns) AS n_ns,
        avg(es) AS m_es, avg(ps) AS m_ps, avg(ns) AS m_ns, harmonic_mean(m_es, m_ps, m_ns) AS s,
        avg(other_es) AS other_m_es, avg(other_ps) AS other_m_ps, avg(other_ns) AS other_m_ns,
        harmonic_mean(other_m_es, other_m_ps, other_m_ns) AS other_s
    FROM kinds GROUP BY ALL
),
score_pairs AS (
    SELECT
        place, other_place, pool, draw, edits, scored, 'score' AS metric, fact_id,
        value_in_s(s, n, es, m_es, n_es, ps, m_ps, n_ps, ns, m_ns, n_ns) AS value,
        value_in_s(other_s, n, other_es, other_m_es, n_es, other_ps, other_m_ps, n_ps, other_ns, other_m_ns, n_ns) AS other_value,
        NULL AS from_age
    FROM kinds JOIN kind_means USING (place, other_place, pool, draw, edits, scored)
    WHERE s IS NOT NULL AND other_s IS NOT NULL
),
pairs AS (
    SELECT *, round(value - other_value, 12) AS difference FROM (FROM rate_pairs UNION ALL FROM score_pairs)
),
draws AS (
    SELECT
        place, other_place, pool, edits, scored, metric, draw, count(*) AS n, avg(difference) AS difference,
        var_samp(difference) / n AS squared_error
    FROM pairs GROUP BY ALL
),
samples AS (
    SELECT
        place, other_place, pool, edits, scored, metric, count(*) AS n_samples, avg(difference) AS difference_of_samples,
        var_samp(difference) / count(*) AS error_of_spread,
        coalesce(is_spread(var_samp(difference), avg(squared_error), count(*)), false) AND count(*) > 1 AS by_sample
    FROM draws GROUP BY ALL
),
-- A fact that several samples have counts once.
per_fact AS (
    SELECT
        place, other_place, pool, edits, scored, metric, fact_id, avg(value) AS value, avg(other_value) AS other_value,
        round(avg(difference), 12) AS difference, max(from_age) AS from_age
    FROM pairs GROUP BY ALL
),
seeds AS (
    SELECT setting, edits, scored, metric, var_samp(mean) / count(*) AS error_of_seeds, count(*) AS n_seeds
    FROM (
        SELECT setting, seed, edits, scored, metric, avg(mean) AS mean
        FROM run_points JOIN run_setting USING (run_id) WHERE curve = 'summary' GROUP BY ALL
    )
    GROUP BY ALL HAVING count(*) > 1
),
pooled AS (
    SELECT
        place, other_place, pool, edits, scored, metric, count(*) AS n_pairs, avg(value) AS mean, avg(other_value) AS other_mean,
        avg(difference) AS difference_of_facts, sum(difference) / (n_pairs + 2) AS middle_of_facts,
        error_of_pairs(n_pairs, sum(difference ** 2), middle_of_facts) AS error_of_facts,
        list(difference) AS differences, max(from_age) AS from_age
    FROM per_fact GROUP BY ALL HAVING count(*) > 1
),
tested AS (
    SELECT
        p.*, n_samples, by_sample, a.* EXCLUDE (place, pool), b.setting AS other_setting, b.editor AS other_editor,
        b.preset AS other_preset, b.protocol AS other_protocol, b.layers AS other_layers, b.batch_size AS other_batch_size,
        b.numbers AS other_numbers, b.guard AS other_guard, b.given_contexts AS other_given_contexts,
        b.given_targets AS other_given_targets,
        b.prefixes AS other_prefixes, b.moments AS other_moments,
        CASE WHEN by_sample THEN difference_of_samples ELSE difference_of_facts END AS difference,
        CASE WHEN by_sample THEN difference_of_samples ELSE middle_of_facts END AS middle,
        CASE WHEN by_sample THEN error_of_spread END AS error_of_samples,
        coalesce(sa.error_of_seeds, 0) + coalesce(sb.error_of_seeds, 0) AS error_by_seed,
        least(sa.n_seeds, sb.n_seeds) - 1 AS df_of_seeds,
        greatest(half_width(error_of_facts, n_pairs - 1), half_width(error_of_samples, n_samples - 1)) AS half_of_facts,
        sqrt(half_of_facts ** 2 + coalesce(half_width(error_by_seed, df_of_seeds), 0) ** 2) AS half,
        len(list_filter(differences, lambda d: d <> 0)) AS n_differ,
        coalesce(error_of_samples, error_of_facts) AS own_error,
        CASE WHEN by_sample THEN n_samples ELSE n_pairs END - 1 AS own_df,
        -- Welch's and Satterthwaite's degrees of freedom of both errors together.
        (own_error + error_by_seed) ** 2 / (own_error ** 2 / own_df + error_by_seed ** 2 / df_of_seeds) AS df_of_both,
        greatest(
            -- What one fact adds to S is no value that might as well have had the other sign: it goes by Student's t.
            CASE WHEN metric = 'score' THEN t_tail(difference / sqrt(error_of_facts), n_pairs - 1) ELSE flip_p(differences) END,
            CASE WHEN by_sample THEN t_tail(difference / sqrt(error_of_samples), n_samples - 1) END,
            CASE WHEN df_of_seeds > 0 THEN t_tail(difference / sqrt(own_error + error_by_seed), df_of_both) END
        ) AS p
    FROM pooled AS p
    JOIN samples USING (place, other_place, pool, edits, scored, metric)
    JOIN ordered AS a ON a.place = p.place
    JOIN ordered AS b ON b.place = p.other_place
    LEFT JOIN seeds AS sa ON sa.setting = a.setting AND sa.edits = p.edits AND sa.scored = p.scored AND sa.metric = p.metric
    LEFT JOIN seeds AS sb ON sb.setting = b.setting AND sb.edits = p.edits AND sb.scored = p.scored AND sb.metric = p.metric
),
adjusted AS (
    SELECT *, holm(p, count(*) OVER family, row_number() OVER ranked) AS stepped FROM tested
    WINDOW family AS (PARTITION BY pool, edits), ranked AS (PARTITION BY pool, edits ORDER BY p)
),
final AS (
    SELECT *, least(1, max(stepped) OVER (PARTITION BY pool, edits ORDER BY p)) AS p_holm FROM adjusted
)
SELECT * EXCLUDE (found_in) FROM (SELECT
    model, facts, mode, edits, scored, metric,
    editor, batch_size, layers, preset, other_editor, other_batch_size, other_layers, other_preset,
    mean, other_mean, difference, greatest(middle - half, -1) AS low, least(middle + half, 1) AS high, p, p_holm,
    CASE WHEN p_holm >= 0.05 OR (middle - half) * (middle + half) <= 0 THEN 'not told apart'
        WHEN difference > 0 THEN 'higher' ELSE 'lower' END AS verdict,
    n_pairs, n_differ, n_samples, CASE WHEN by_sample THEN 'sample' ELSE 'fact' END AS clustered_by, from_age,
    list_filter([
        CASE WHEN editor <> other_editor THEN 'editor' END,
        CASE WHEN batch_size <> other_batch_size THEN 'batch_size' END,
        CASE WHEN layers <> other_layers THEN 'layers' END,
        CASE WHEN protocol <> other_protocol THEN 'protocol' END,
        CASE WHEN guard IS DISTINCT FROM other_guard THEN 'guard' END,
        CASE WHEN moments <> other_moments THEN 'moments' END,
        CASE WHEN editor = other_editor AND preset IS DISTINCT FROM other_preset THEN 'preset' END,
        -- A preset and a protocol have numbers of their own, and these prefixes of their own.
        CASE WHEN editor = other_editor AND preset IS NOT DISTINCT FROM other_preset AND protocol = other_protocol
            AND numbers <> other_numbers THEN 'hparams' END,
        CASE WHEN given_contexts IS DISTINCT FROM other_given_contexts OR (numbers = other_numbers AND prefixes <> other_prefixes)
            THEN 'contexts' END,
        CASE WHEN given_targets IS DISTINCT FROM other_given_targets THEN 'targets' END
    ], lambda part: part IS NOT NULL) AS found_in,
    CASE WHEN found_in = [] THEN ['other'] ELSE found_in END AS differs_in,
    setting, other_setting, pool
FROM final)
ORDER BY model, edits, scored DESC, metric, editor, batch_size, layers, other_editor, other_batch_size, other_layers
