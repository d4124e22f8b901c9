-- Settings compared in pairs: of one model, data set and mode, after equally many edits, over the facts that both have edited as
-- parts of the same samples (`n_pairs`; `n_differ` of them with different values; a fact's value is its mean over seeds).
-- `difference` is that of the first setting to the second, with an interval of 95 % (half a pair for and half a pair against are
-- added; over samples, where their differences differ by more than their facts explain; wider by the spread between seeds).
-- `p`: two-sided, by flipping the signs of pairs; of Student's t, where that is larger and samples differ or there are seeds.
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
    GROUP BY ALL
),
pairs AS (
    SELECT
        a.place, b.place AS other_place, a.pool, a.draw, a.edits, a.scored, a.metric, a.value, b.value AS other_value,
        round(a.value - b.value, 12) AS difference, a.from_age
    FROM values_of AS a JOIN values_of AS b
        ON b.pool = a.pool AND b.draw = a.draw AND b.edits = a.edits AND b.scored = a.scored AND b.metric = a.metric
        AND b.fact_id = a.fact_id AND b.place > a.place
),
draws AS (
    SELECT
        place, other_place, pool, edits, scored, metric, draw, count(*) AS n, avg(value) AS mean,
        avg(other_value) AS other_mean, avg(difference) AS difference, sum(difference) AS total, sum(difference ** 2) AS squares,
        var_samp(difference) / n AS squared_error, list(difference) AS differences, max(from_age) AS from_age
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
        place, other_place, pool, edits, scored, metric, count(*) AS n_samples, sum(n)::BIGINT AS n_pairs,
        avg(mean) AS mean, avg(other_mean) AS other_mean, avg(difference) AS difference,
        sum(total) / (sum(n) + 2) AS middle,
        ((sum(squares) + 1) / (sum(n) + 2) - middle ** 2) / (sum(n) + 1) AS error_of_facts,
        coalesce(is_spread(var_samp(difference), avg(squared_error), count(*)), false) AND count(*) > 1 AS by_sample,
        CASE WHEN by_sample THEN var_samp(difference) / count(*) END AS error_of_samples,
        flatten(list(differences)) AS differences, max(from_age) AS from_age
    FROM draws GROUP BY ALL
),
tested AS (
    SELECT
        p.*, a.* EXCLUDE (place, pool), b.setting AS other_setting, b.editor AS other_editor, b.variant AS other_variant,
        b.preset AS other_preset, b.protocol AS other_protocol, b.layers AS other_layers, b.batch_size AS other_batch_size,
        b.numbers AS other_numbers, b.guard AS other_guard, b.given_contexts AS other_given_contexts,
        coalesce(sa.error_of_seeds, 0) + coalesce(sb.error_of_seeds, 0) AS error_by_seed,
        least(sa.n_seeds, sb.n_seeds) - 1 AS df_of_seeds,
        greatest(half_width(error_of_facts, n_pairs - 1), half_width(error_of_samples, n_samples - 1)) AS half_of_facts,
        sqrt(half_of_facts ** 2 + coalesce(half_width(error_by_seed, df_of_seeds), 0) ** 2) AS half,
        len(list_filter(differences, lambda d: d <> 0)) AS n_differ,
        greatest(
            flip_p(differences),
            CASE WHEN by_sample THEN t_tail(p.difference / sqrt(error_of_samples), n_samples - 1) END,
            CASE WHEN df_of_seeds IS NOT NULL
                THEN t_tail(p.difference / sqrt(greatest(error_of_facts, coalesce(error_of_samples, 0)) + error_by_seed), df_of_seeds)
            END
        ) AS p
    FROM pooled AS p
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
SELECT
    model, facts, mode, edits, scored, metric,
    editor, batch_size, layers, preset, other_editor, other_batch_size, other_layers, other_preset,
    mean, other_mean, difference, middle - half AS low, middle + half AS high, p, p_holm,
    CASE WHEN p_holm >= 0.05 OR (middle - half) * (middle + half) <= 0 THEN 'not told apart'
        WHEN difference > 0 THEN 'higher' ELSE 'lower' END AS verdict,
    n_pairs, n_differ, n_samples, CASE WHEN by_sample THEN 'sample' ELSE 'fact' END AS clustered_by, from_age,
    list_filter([
        CASE WHEN editor <> other_editor THEN 'editor' END,
        CASE WHEN batch_size <> other_batch_size THEN 'batch_size' END,
        CASE WHEN layers <> other_layers THEN 'layers' END,
        CASE WHEN protocol <> other_protocol THEN 'protocol' END,
        CASE WHEN editor = other_editor AND preset IS DISTINCT FROM other_preset THEN 'preset' END,
        CASE WHEN editor = other_editor AND numbers <> other_numbers THEN 'hparams' END,
        CASE WHEN guard IS DISTINCT FROM other_guard THEN 'guard' END,
        CASE WHEN given_contexts IS DISTINCT FROM other_given_contexts THEN 'contexts' END
    ], lambda part: part IS NOT NULL) AS differs_in,
    setting, other_setting, pool
FROM final
ORDER BY model, edits, scored DESC, metric, editor, batch_size, layers, other_editor, other_batch_size, other_layers
