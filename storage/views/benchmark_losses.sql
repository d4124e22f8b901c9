-- What a setting's models no longer know: of the questions that were asked before and after, the share that was answered right
-- after `since_edits` edits less the share after `edits`, with an interval of 95 %. `since_edits`: 0, the unedited model; and the
-- checkpoint before. Of each benchmark, and of the questions of all (`benchmark` NULL); of each sample, and over all (`sample`
-- NULL), where the interval is over samples if these differ by more than their questions explain. A question counts once.
--
-- unique: [setting, sample, benchmark, since_edits, edits]
-- not_null: [setting, model, editor, batch_size, since_edits, edits, lost, low, high, n_questions, n_runs]
WITH answers AS (
    SELECT
        run_id, setting, sample, questions_run_id || ' ' || example_id AS question, benchmark, scored_at, edits_so_far AS edits, correct
    FROM answers_by_part JOIN run_setting USING (run_id) WHERE part IS NULL
),
checkpoints AS (
    SELECT run_id, scored_at, lag(scored_at) OVER (PARTITION BY run_id ORDER BY scored_at) AS before,
        min(scored_at) OVER (PARTITION BY run_id) AS start
    FROM (SELECT DISTINCT run_id, scored_at FROM answers)
),
steps AS (
    SELECT DISTINCT run_id, scored_at, unnest([start, before]) AS since FROM checkpoints WHERE before IS NOT NULL
),
lost AS (
    SELECT
        a.setting, a.sample, b.edits AS since_edits, a.edits, a.benchmark, a.question, count(*) AS n_runs,
        avg(b.correct - a.correct) AS lost
    FROM steps
    JOIN answers AS a USING (run_id, scored_at)
    JOIN answers AS b ON b.run_id = a.run_id AND b.scored_at = steps.since AND b.question = a.question
    GROUP BY ALL
),
samples AS (
    SELECT
        setting, since_edits, edits, part.benchmark AS benchmark, sample, avg(lost) AS lost,
        var_samp(lost) / nullif(count(*), 0) AS squared_error
    FROM lost, unnest([lost.benchmark, NULL]) AS part(benchmark)
    GROUP BY ALL
),
spreads AS (
    SELECT
        setting, since_edits, edits, benchmark, count(*) AS n_samples, avg(lost) AS lost_of_samples,
        var_samp(lost) / count(*) AS error_of_spread,
        count(*) > 1 AND coalesce(is_spread(var_samp(lost), avg(squared_error), count(*)), false) AS by_sample
    FROM samples GROUP BY ALL
),
per_question AS (
    SELECT setting, since_edits, edits, part.benchmark AS benchmark, of.sample AS sample, question, avg(lost) AS lost, sum(n_runs) AS n_runs
    FROM lost, unnest([lost.benchmark, NULL]) AS part(benchmark), unnest([lost.sample, NULL]) AS of(sample)
    GROUP BY ALL
),
pooled AS (
    SELECT
        setting, since_edits, edits, benchmark, sample, avg(lost) AS lost, count(*) AS n_questions, max(n_runs)::BIGINT AS n_runs,
        sum(lost) / (n_questions + 2) AS middle,
        -- Half a question for and half a question against are added, as in `comparisons`.
        ((sum(lost ** 2) + 1) / (n_questions + 2) - middle ** 2) / (n_questions + 1) AS error
    FROM per_question GROUP BY ALL HAVING count(*) > 1
),
judged AS (
    SELECT
        pooled.*, CASE WHEN sample IS NULL THEN n_samples ELSE 1 END AS n_samples, sample IS NULL AND by_sample AS is_by_sample,
        CASE WHEN is_by_sample THEN lost_of_samples ELSE middle END AS center,
        greatest(
            half_width(error, n_questions - 1), CASE WHEN is_by_sample THEN half_width(error_of_spread, spreads.n_samples - 1) END
        ) AS half
    FROM pooled JOIN spreads
        ON spreads.setting = pooled.setting AND spreads.since_edits = pooled.since_edits AND spreads.edits = pooled.edits
        AND spreads.benchmark IS NOT DISTINCT FROM pooled.benchmark
)
SELECT
    model, editor, preset, protocol, layers, batch_size, mode, facts, guard, sample, benchmark, since_edits, judged.edits,
    CASE WHEN is_by_sample THEN center ELSE lost END AS lost, greatest(-1, center - half) AS low, least(1, center + half) AS high,
    n_questions, n_runs, n_samples, CASE WHEN is_by_sample THEN 'sample' ELSE 'question' END AS clustered_by, setting
FROM judged JOIN settings USING (setting)
ORDER BY model, editor, batch_size, setting, benchmark, sample, since_edits, judged.edits
