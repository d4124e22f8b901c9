-- Each benchmark against the number of edits: accuracy, F1 (mean over the labels; an invalid answer is wrong), Matthews'
-- correlation, the mean value of answers that count in part, each with its standard error; and the shares of answers that
-- are no label, or whose prompt does not fit into the model's context. One benchmark asked in two ways (other shots,
-- other examples) has two `questions_run_id`.
--
-- unique: [run_id, benchmark, questions_run_id, edits]
-- not_null: [run_id, benchmark, questions_run_id, edits, accuracy, n_examples, n_shots, shots_from]
-- rates: [f1, f1_weighted, accuracy, invalid, too_long, is_nan]
-- references: {run_id: runs.run_id}
SELECT * EXCLUDE (part, is_start) FROM benchmark_metrics WHERE part IS NULL AND NOT is_start ORDER BY run_id, benchmark, questions_run_id, edits
