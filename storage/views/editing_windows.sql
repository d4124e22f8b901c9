-- step
-- Means and population variances over the last `window_edits` (5 and 50) edits of each run, after each edit.
WITH windows AS (SELECT unnest([5, 50]) AS window_edits)
SELECT
    own.run_id,
    windows.window_edits,
    own.position + 1 AS edits,
    avg(other.efficacy) AS efficacy,
    avg(other.paraphrase) AS paraphrase,
    avg(other.neighborhood) AS neighborhood,
    avg(other.efficacy_accuracy) AS efficacy_accuracy,
    avg(other.paraphrase_accuracy) AS paraphrase_accuracy,
    avg(other.neighborhood_accuracy) AS neighborhood_accuracy,
    var_pop(other.efficacy) AS efficacy_variance,
    var_pop(other.paraphrase) AS paraphrase_variance,
    var_pop(other.neighborhood) AS neighborhood_variance,
    count(*) AS n_edits
FROM own_scores AS own
CROSS JOIN windows
JOIN own_scores AS other
    ON other.run_id = own.run_id
    AND other.position BETWEEN own.position - windows.window_edits + 1 AND own.position
GROUP BY own.run_id, windows.window_edits, own.position
