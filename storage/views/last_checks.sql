-- kept
-- The earlier edits that each run's last checkpoint looked at.
SELECT run_id, fact_id, edits_so_far, age, was_right, wrong_now
FROM checked_edits
QUALIFY scored_at = max(scored_at) OVER (PARTITION BY run_id)
