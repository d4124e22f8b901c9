-- One row per checkpoint of a run: what is left of what the model knew and of what it was taught, each beside its level, which
-- is known beforehand. `neighborhood_accuracy`: neighbors (argmax) of the edits since the checkpoint before, beside what the
-- unedited model makes of the same ones. `benchmark_score`: mean over benchmarks of F1, or of the answers' value where there
-- are no fixed labels, beside the unedited model's (`benchmark_level`) and what guessing scores (`benchmark_guessed`); a
-- benchmark in which the unedited model is no better than guessing says nothing. `retention_accuracy`: earlier edits that a
-- later round followed; its level is 1. `new_edits_accuracy` is shown and not judged: fine-tuning makes a destroyed model say
-- every new edit, and an editor without effect fails at all of them on a sound one.
-- `lost`: neighbors, benchmarks (half of the way from guessing) and earlier edits, as far as they were measured, are all below
-- half of their level. `collapsed`: from this checkpoint on all are lost. `is_judged`: at least two of the three were measured,
-- one of them of what the unedited model knew; where not, nothing is lost.
--
-- unique: [run_id, edits]
-- not_null: [run_id, model, editor, batch_size, edits, is_judged, lost, collapsed]
-- rates: [retention_accuracy, new_edits_accuracy, neighborhood_accuracy, neighborhood_level]
-- references: {run_id: runs.run_id}
WITH cells AS (
    SELECT
        cell, any_value(run_id) AS run_id, any_value(questions_run_id) AS questions_run_id, any_value(is_start) AS is_start,
        any_value(scored_at) AS scored_at, any_value(edits_so_far) AS edits, count(*) AS n, avg(value) AS mean_value,
        avg(CASE WHEN len(labels) > 1 THEN 1 / len(labels) ELSE 0 END) AS guessed_value
    FROM answers_by_part WHERE part IS NULL GROUP BY cell
),
guesses AS (
    -- F1 of a guess that takes each label equally often, of a label that is right p = n_gold / n of the time.
    SELECT cell, avg(2 * n_gold / (n_gold * n_labels + n)) AS f1_guessed
    FROM class_scores JOIN cells USING (cell) JOIN class_means USING (cell)
    WHERE is_label
    GROUP BY cell
),
answered AS (
    SELECT
        run_id, questions_run_id, scored_at, edits, is_start,
        coalesce(class_means.f1, mean_value) AS score, coalesce(f1_guessed, guessed_value) AS guessed
    FROM cells LEFT JOIN class_means USING (cell) LEFT JOIN guesses USING (cell)
),
downstream AS (
    SELECT
        run.run_id, asked.scored_at, any_value(asked.edits) AS edits, avg(asked.score) AS benchmark_score,
        avg(unedited.score) AS benchmark_level, avg(unedited.guessed) AS benchmark_guessed
    FROM answered AS asked
    JOIN runs AS run USING (run_id)
    JOIN answered AS unedited
        ON unedited.run_id = asked.run_id AND unedited.questions_run_id = asked.questions_run_id AND unedited.is_start
    WHERE NOT asked.is_start AND run.editor <> 'none' AND run.mode = 'sequential' AND unedited.score > unedited.guessed
    GROUP BY ALL
),
checkpoints AS (
    SELECT
        *, coalesce(lag(scored_at) OVER (PARTITION BY run_id ORDER BY scored_at), -1) AS scored_before
    FROM (
        SELECT
            run_id, scored_at, coalesce(c.edits, d.edits) AS edits, c.n_scored, c.retention_accuracy,
            d.benchmark_score, d.benchmark_level, d.benchmark_guessed
        FROM check_rates AS c FULL JOIN downstream AS d USING (run_id, scored_at)
    )
),
seen AS (
    SELECT
        r.* EXCLUDE (run_id), checkpoint.* EXCLUDE (scored_at, scored_before),
        avg(own.efficacy_accuracy) AS new_edits_accuracy,
        avg(own.neighborhood_accuracy) FILTER (WHERE unedited.neighborhood_accuracy IS NOT NULL) AS neighborhood_accuracy,
        avg(unedited.neighborhood_accuracy) AS neighborhood_level
    FROM checkpoints AS checkpoint
    JOIN runs USING (run_id)
    JOIN run_columns AS r USING (run_id)
    LEFT JOIN own_rates AS own
        ON own.run_id = checkpoint.run_id AND own.edited_at > scored_before AND own.edited_at <= checkpoint.scored_at
    LEFT JOIN own_rates AS unedited ON unedited.run_id = runs.baseline_run_id AND unedited.fact_id = own.fact_id
    GROUP BY ALL
),
judged AS (
    SELECT
        *,
        (coalesce(neighborhood_level, 0) > 0)::INT + (benchmark_level IS NOT NULL)::INT AS n_known,
        n_known > 0 AND n_known + (retention_accuracy IS NOT NULL)::INT > 1 AS is_judged,
        is_judged
            AND coalesce(neighborhood_accuracy < 0.5 * nullif(neighborhood_level, 0), true)
            AND coalesce(benchmark_score - benchmark_guessed < 0.5 * (benchmark_level - benchmark_guessed), true)
            AND coalesce(retention_accuracy < 0.5, true) AS lost
    FROM seen
)
SELECT
    * EXCLUDE (n_known),
    bool_and(lost) OVER (PARTITION BY run_id ORDER BY edits ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS collapsed
FROM judged
ORDER BY run_id, edits
