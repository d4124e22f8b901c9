-- step
-- Of the facts that the samples of a setting have edited, counted by sample, the share that are different ones: 1 where samples
-- are disjoint.
SELECT setting, count(DISTINCT fact_id) / count(DISTINCT (draw, fact_id)) AS share_of_its_own
FROM edits JOIN run_setting USING (run_id)
GROUP BY setting
