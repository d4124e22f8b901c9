-- Scores against batch size, means over samples and seeds. `forgotten` is compared on the same early edits: only those that at
-- least `forgotten_age` further edits followed count, the least number at which every compared setting has such edits
-- (compared are settings of one model, precision, data set and size, mode and protocol, after equally many edits; NULL where a
-- setting has none); `n_right_when_applied`: those of them that were right when applied, over all runs. `given_contexts` tells
-- context prefixes that were given apart (NULL: sampled).
--
-- unique: [model_digest, dtype, facts_digest, editor, variant, layers, mode, protocol, hparams_digest, given_contexts, batch_size, edits]
-- not_null: [model, editor, batch_size, n_runs]
-- rates: [efficacy, paraphrase, neighborhood, score, forgotten, benchmark_f1]
WITH last_checks AS (
    SELECT run_id, age, was_right, wrong_now
    FROM checked_edits
    QUALIFY scored_at = max(scored_at) OVER (PARTITION BY run_id)
),
followed AS (
    SELECT
        run.* EXCLUDE (n_right_when_applied),
        runs.model_digest,
        runs.dtype,
        runs.facts,
        runs.spec->'facts'->>'digest' AS facts_digest,
        runs.spec->'facts'->>'size' AS n_facts,
        left(md5(runs.spec->'contexts_recipe'->>'texts'), 8) AS given_contexts,
        youngest
    FROM run_summary AS run
    JOIN runs USING (run_id)
    LEFT JOIN (SELECT run_id, min(age) AS youngest FROM last_checks WHERE age > 0 GROUP BY run_id) USING (run_id)
    WHERE run.editor <> 'none'
),
compared AS (
    SELECT
        *,
        max(youngest) OVER (
            PARTITION BY model, model_digest, dtype, facts_digest, n_facts, mode, protocol, edits
        ) AS common_age
    FROM followed
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
    model, model_digest, dtype, facts, facts_digest, editor, variant, layers, mode, protocol, hparams_digest,
    given_contexts, batch_size, edits,
    count(*) AS n_runs,
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
ORDER BY model, editor, batch_size, edits
