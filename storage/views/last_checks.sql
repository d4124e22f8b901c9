-- kept
-- The earlier edits that each run's last checkpoint looked at, if that stands behind its last round.
SELECT run_id, fact_id, edits_so_far, age, was_right, wrong_now
FROM checked_edits SEMI JOIN last_rounds USING (run_id, scored_at)
