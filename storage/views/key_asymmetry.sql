-- How far the bare prompt's key is from the prefix-averaged one in the geometry of each edit, (C⁻¹k̄)ᵀk / (C⁻¹k̄)ᵀk̄: the
-- original ROME divides by the numerator, so near 0 its update explodes (a disabling edit).  It is a
-- property of the keys, whatever the protocol; editors with one key throughout divide by the denominator, where it is 1.
--
-- unique: [run_id]
-- not_null: [run_id, model, editor, n_edits, smallest, median, largest, n_below_half]
-- references: {run_id: runs.run_id}
SELECT
    run.run_id, run.model, run.editor, run.variant, run.protocol, run.batch_size,
    count(*) AS n_edits,
    min(key_asymmetry) AS smallest,
    quantile_cont(key_asymmetry, 0.05) AS p05,
    median(key_asymmetry) AS median,
    quantile_cont(key_asymmetry, 0.95) AS p95,
    max(key_asymmetry) AS largest,
    count(*) FILTER (WHERE abs(key_asymmetry) < 0.5) AS n_below_half
FROM edits
JOIN run_latest AS run USING (run_id)
WHERE key_asymmetry IS NOT NULL
GROUP BY ALL
ORDER BY run.model, run.editor, run.run_id
