-- step
-- Each scored probe once: two commands with other extents, or two stores put together, may have scored the same one. Filters
-- on any of the named columns reach the table.
SELECT DISTINCT ON (run_id, purpose, kind, fact_id, probe_id, edited_at, scored_at) * FROM fact_scores
