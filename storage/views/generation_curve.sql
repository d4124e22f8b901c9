-- What the model writes freely, against the number of edits: the n-gram entropy in bits (weighted mean over bigrams and
-- trigrams, arXiv 2202.05262) and the share of 4-grams that had stood in the text before, means over the texts; `n_lost`:
-- texts in which the model gave NaN, which are left out of the means.
--
-- unique: [run_id, edits]
-- not_null: [run_id, edits, n_texts, n_lost]
-- rates: [repetition]
-- references: {run_id: runs.run_id}
SELECT
    r.* EXCLUDE (run_id), g.run_id, g.scored_at, g.edits_so_far AS edits,
    count(*) AS n_texts, count(*) FILTER (WHERE text IS NULL) AS n_lost, avg(entropy) AS entropy, avg(repetition) AS repetition
FROM generations AS g JOIN run_columns AS r USING (run_id)
GROUP BY ALL ORDER BY g.run_id, edits
