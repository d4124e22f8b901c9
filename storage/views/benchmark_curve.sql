-- Each benchmark against the number of edits: accuracy, F1 (macro over the labels; an invalid answer is wrong), and the
-- share of answers that are no label at all.
WITH answers AS (
    SELECT *, unnest(labels) AS label FROM benchmark_answers
),
per_label AS (
    SELECT
        run_id, benchmark, scored_at, edits_so_far, label,
        count(*) FILTER (WHERE gold = label AND predicted = label) AS hits,
        count(*) FILTER (WHERE gold = label) AS n_gold,
        count(*) FILTER (WHERE predicted = label) AS n_predicted
    FROM answers
    GROUP BY ALL
),
f1 AS (
    SELECT run_id, benchmark, scored_at, edits_so_far, avg(2 * hits / greatest(n_gold + n_predicted, 1)) AS f1
    FROM per_label
    GROUP BY ALL
),
plain AS (
    SELECT
        run_id, benchmark, scored_at, edits_so_far,
        count(*) AS n_examples,
        avg(coalesce(predicted = gold, false)::INT) AS accuracy,
        avg((predicted IS NULL)::INT) AS invalid
    FROM benchmark_answers
    GROUP BY ALL
),
final AS (
    SELECT
        runs.editor, runs.batch_size, runs.model, runs.sample, plain.run_id, plain.benchmark, plain.scored_at,
        plain.edits_so_far AS edits, plain.n_examples, f1.f1, plain.accuracy, plain.invalid,
        sqrt(plain.accuracy * (1 - plain.accuracy) / plain.n_examples) AS accuracy_stderr
    FROM plain
    JOIN f1 USING (run_id, benchmark, scored_at, edits_so_far)
    JOIN runs USING (run_id)
)
SELECT * FROM final ORDER BY run_id, benchmark, edits
