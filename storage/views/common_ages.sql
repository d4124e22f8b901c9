-- step
-- The number of further edits from which on every compared run has edits that as many have followed: runs of one pool, after
-- equally many edits.
SELECT run_id, max(youngest) OVER (PARTITION BY pool, edits) AS common_age
FROM run_setting
JOIN run_latest USING (run_id)
JOIN (SELECT run_id, min(age) AS youngest FROM last_checks WHERE age > 0 GROUP BY run_id) USING (run_id)
