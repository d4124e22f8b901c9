-- Edits asked in another form than they were written in: of those whose own prompt is answered right (every target token
-- argmax) right after the round, the share that is also right as a question, and as the beginning of a sentence (the zsRE
-- finding of arXiv 2401.07453, A.1; of `n_rewritten` facts). NULL where the data set has no such prompts.
--
-- unique: [run_id]
-- not_null: [run_id, n_facts]
-- rates: [rewrite_accuracy, question_accuracy, completion_accuracy, question_if_rewritten, completion_if_rewritten]
-- references: {run_id: runs.run_id}
WITH own AS (
    SELECT run_id, fact_id, edited_at, kind, avg(argmax) AS rate, avg(contained) AS contained
    FROM probe_outcomes WHERE purpose IN ('own', 'baseline') GROUP BY ALL
),
per_fact AS (
    SELECT
        run_id, fact_id, edited_at,
        max(rate) FILTER (WHERE kind = 'rewrite') AS rewrite,
        max(rate) FILTER (WHERE kind = 'question') AS question,
        max(rate) FILTER (WHERE kind = 'completion') AS completion,
        max(contained) FILTER (WHERE kind = 'question') AS question_contained,
        max(contained) FILTER (WHERE kind = 'completion') AS completion_contained
    FROM own GROUP BY ALL
)
SELECT
    r.* EXCLUDE (run_id), run_id,
    count(*) AS n_facts,
    count(*) FILTER (WHERE rewrite = 1) AS n_rewritten,
    avg(rewrite) AS rewrite_accuracy,
    avg(question) AS question_accuracy,
    avg(completion) AS completion_accuracy,
    avg(question) FILTER (WHERE rewrite = 1) AS question_if_rewritten,
    avg(completion) FILTER (WHERE rewrite = 1) AS completion_if_rewritten,
    avg(question_contained) AS question_contained,
    avg(completion_contained) AS completion_contained
FROM per_fact JOIN run_columns AS r USING (run_id)
GROUP BY ALL
HAVING count(question) + count(completion) > 0
ORDER BY r.model, r.editor, r.batch_size, run_id
