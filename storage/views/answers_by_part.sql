-- kept
-- Each answer once, in the whole of its benchmark (`part` NULL) and in its group. `cell` numbers (run, questions, checkpoint,
-- part), as a short key; `has_labels` says whether all answers of a cell have the same labels.
-- Two commands at once may have asked the same question; the answers are the same.
WITH once AS (
    SELECT DISTINCT ON (run_id, questions_run_id, scored_at, example_id) *
    FROM benchmark_answers
    ORDER BY run_id, questions_run_id, scored_at, example_id, unit_id
),
answers AS (
    SELECT
        run_id, benchmark, questions_run_id, scored_at, edits_so_far, n_shots, shots_from,
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
