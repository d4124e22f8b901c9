-- As benchmark_curve, for each group of a benchmark (MMLU's subjects, BBH's tasks, TyDi QA's languages).
--
-- unique: [run_id, benchmark, questions_run_id, subset, edits]
-- not_null: [run_id, benchmark, questions_run_id, subset, edits, accuracy, n_examples]
-- rates: [f1, f1_weighted, accuracy, invalid, too_long, is_nan]
-- references: {run_id: runs.run_id}
SELECT part AS subset, * EXCLUDE (part, is_start)
FROM benchmark_metrics WHERE part IS NOT NULL AND NOT is_start ORDER BY run_id, benchmark, questions_run_id, edits, subset
