-- As benchmark_curve, for each group of a benchmark (MMLU's subjects, BBH's tasks, TyDi QA's languages).
SELECT part AS subset, * EXCLUDE (part)
FROM benchmark_metrics WHERE part IS NOT NULL ORDER BY run_id, benchmark, questions_run_id, edits, subset
