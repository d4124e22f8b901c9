-- step
-- The columns by which every curve tells runs apart: its setting, what that is, sample and seed. The unedited model has no
-- setting.
SELECT
    run_id, runs.model, runs.editor, runs.variant, runs.preset, runs.protocol, runs.layers, runs.batch_size, runs.mode,
    runs.sample, runs.seed, guard, moments, setting
FROM runs LEFT JOIN run_setting USING (run_id)
