-- Scores against batch size, means over samples and seeds. `forgotten` is compared at one age: only edits that at least
-- `forgotten_age` further edits followed count, the least number at which every compared setting has such edits (compared are
-- settings of one model, mode, protocol and number of edits; NULL where a setting has none); `n_right_when_applied`: those of
-- them that were right when applied, over all runs.
WITH last_checks AS (
    SELECT run_id, age, was_right, wrong_now
    FROM checked_edits
    QUALIFY scored_at = max(scored_at) OVER (PARTITION BY run_id)
),
followed AS (
    SELECT run.* EXCLUDE (n_right_when_applied), youngest
    FROM run_summary AS run
    LEFT JOIN (SELECT run_id, min(age) AS youngest FROM last_checks WHERE age > 0 GROUP BY run_id) USING (run_id)
    WHERE editor <> 'none'
),
compared AS (
    SELECT *, max(youngest) OVER (PARTITION BY model, mode, protocol, edits) AS common_age FROM followed
),
at_age AS (
    SELECT
        run_id,
        count(*) AS n_right,
        avg(wrong_now::INT) AS forgotten
    FROM compared JOIN last_checks USING (run_id)
    WHERE was_right AND age >= common_age
    GROUP BY run_id
)
SELECT
    model, editor, variant, layers, mode, protocol, hparams_digest, batch_size,
    count(*) AS n_runs,
    min(edits) AS edits,
    avg(efficacy) AS efficacy,
    avg(paraphrase) AS paraphrase,
    avg(neighborhood) AS neighborhood,
    avg(score) AS score,
    avg(at_age.forgotten) AS forgotten,
    max(common_age) FILTER (WHERE n_right > 0) AS forgotten_age,
    coalesce(sum(n_right), 0)::BIGINT AS n_right_when_applied,
    avg(drift) AS drift,
    avg(benchmark_f1) AS benchmark_f1
FROM compared LEFT JOIN at_age USING (run_id)
GROUP BY ALL
ORDER BY model, editor, batch_size
