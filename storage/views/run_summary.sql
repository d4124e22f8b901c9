-- One row per run: the columns that papers print, over all edits made so far.
-- collapsed_at: the first checkpoint from which on the accuracy of new edits (those since the checkpoint before) and of
-- all earlier edits both stay below half of their level at the first checkpoint; NULL if never. By argmax, not by which of
-- the two answers is likelier: in a collapsed model that is a coin toss, and half of a toss is never reached.
WITH own AS MATERIALIZED (
    SELECT run_id, edited_at, efficacy, paraphrase, neighborhood, efficacy_accuracy FROM own_rates
),
checks AS MATERIALIZED (
    SELECT run_id, scored_at, edits, forgotten, retention, retention_accuracy FROM check_rates
),
rates AS (
    SELECT
        run_id,
        avg(efficacy) AS efficacy,
        avg(paraphrase) AS paraphrase,
        avg(neighborhood) AS neighborhood
    FROM own
    GROUP BY run_id
),
last_check AS (
    SELECT run_id, arg_max(forgotten, edits) AS forgotten, arg_max(retention, edits) AS retention
    FROM checks
    GROUP BY run_id
),
moved AS (
    SELECT run_id, max(drift) AS drift
    FROM (
        SELECT run_id, parameter, arg_max(drift, round) AS drift FROM rounds GROUP BY run_id, parameter
    )
    GROUP BY run_id
),
downstream AS (
    SELECT run_id, avg(f1) AS benchmark_f1
    FROM (
        SELECT run_id, questions_run_id, arg_max(f1, edits_so_far) AS f1
        FROM (SELECT DISTINCT cell, run_id, questions_run_id, edits_so_far FROM answers_by_part WHERE part IS NULL)
        JOIN class_means USING (cell)
        GROUP BY ALL
    )
    GROUP BY run_id
),
checkpoints AS (
    SELECT
        run_id, scored_at, edits, retention_accuracy AS retention,
        coalesce(lag(scored_at) OVER (PARTITION BY run_id ORDER BY scored_at), -1) AS scored_before
    FROM checks
),
levels AS (
    SELECT c.run_id, c.edits, c.retention, avg(own.efficacy_accuracy) AS efficacy
    FROM checkpoints AS c
    LEFT JOIN own
        ON own.run_id = c.run_id AND own.edited_at > c.scored_before AND own.edited_at <= c.scored_at
    GROUP BY ALL
),
judged AS (
    SELECT
        *,
        row_number() OVER w > 1
            AND coalesce(efficacy, 0) < 0.5 * first_value(efficacy) OVER w
            AND coalesce(retention, 0) < 0.5 * first_value(retention) OVER w AS low
    FROM levels
    WINDOW w AS (PARTITION BY run_id ORDER BY edits)
),
collapse AS (
    SELECT run_id, min(edits) FILTER (WHERE low_from_here) AS collapsed_at
    FROM (
        SELECT
            *,
            bool_and(low) OVER (
                PARTITION BY run_id ORDER BY edits ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
            ) AS low_from_here
        FROM judged
    )
    GROUP BY run_id
),
final AS (
    SELECT
        run.run_id,
        run.model,
        run.editor,
        run.variant,
        run.hparams_digest,
        run.preset,
        run.effective_ridge,
        run.layers,
        run.batch_size,
        run.mode,
        run.sample,
        run.seed,
        run.protocol,
        run.algorithm_version,
        run.edits,
        rates.efficacy,
        rates.paraphrase,
        rates.neighborhood,
        CASE
            WHEN least(rates.efficacy, rates.paraphrase, rates.neighborhood) <= 0 THEN 0
            ELSE 3 / (1 / rates.efficacy + 1 / rates.paraphrase + 1 / rates.neighborhood)
        END AS score,
        last_check.forgotten,
        moved.drift,
        downstream.benchmark_f1,
        collapse.collapsed_at
    FROM run_latest AS run
    LEFT JOIN rates USING (run_id)
    LEFT JOIN last_check USING (run_id)
    LEFT JOIN moved USING (run_id)
    LEFT JOIN downstream USING (run_id)
    LEFT JOIN collapse USING (run_id)
)
SELECT * FROM final ORDER BY model, editor, batch_size, sample, run_id
