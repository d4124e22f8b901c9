-- kept
-- Each answer once, in the whole of its benchmark (`part` NULL) and in its group. `cell` numbers (run, questions, checkpoint,
-- part), as a short key; `has_labels` says whether all answers of a cell have the same labels. A run of edits begins with what
-- the unedited model answered to the same questions (`is_start`): its baseline, which runs share, may have been asked more.
-- Two commands at once may have asked the same question; the answers are the same.
WITH asked AS (
    SELECT DISTINCT ON (run_id, questions_run_id, scored_at, example_id) *
    FROM benchmark_answers
    ORDER BY run_id, questions_run_id, scored_at, example_id, unit_id
),
once AS (
    SELECT *, false AS is_start FROM asked
    UNION ALL
    SELECT unedited.* REPLACE (answer.run_id AS run_id), true
    FROM (SELECT DISTINCT run_id, questions_run_id, example_id FROM asked) AS answer
    JOIN runs ON runs.run_id = answer.run_id AND runs.editor <> 'none'
    JOIN asked AS unedited
        ON unedited.run_id = runs.baseline_run_id AND unedited.questions_run_id = answer.questions_run_id
        AND unedited.example_id = answer.example_id
),
answers AS (
    SELECT
        run_id, benchmark, questions_run_id, scored_at, edits_so_far, example_id, is_start, n_shots, shots_from,
        unnest(CASE WHEN subset = '' THEN [NULL] ELSE [NULL, subset] END) AS part,
        labels, gold, coalesce(predicted, '') AS said, correct::INT AS correct, value, outcome
    FROM once
)
SELECT
    dense_rank() OVER (ORDER BY run_id, questions_run_id, scored_at, part) AS cell,
    *,
    count(DISTINCT labels) OVER (PARTITION BY run_id, questions_run_id, scored_at, part) = 1 AND len(labels) > 1
        AS has_labels
FROM answers
