-- step
-- Of the facts that the runs of a setting have edited, counted by run, the share that are different ones: 1 where samples are
-- disjoint and no seed repeats one.
SELECT setting, count(DISTINCT fact_id) / count(*) AS share_of_its_own
FROM edits JOIN run_setting USING (run_id)
GROUP BY setting
