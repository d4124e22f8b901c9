-- step
-- One row per setting: what it is.
SELECT
    setting, any_value(pool) AS pool, any_value(model) AS model, any_value(dtype) AS dtype, any_value(facts) AS facts,
    any_value(editor) AS editor, any_value(variant) AS variant, any_value(preset) AS preset, any_value(protocol) AS protocol,
    any_value(layers) AS layers, any_value(batch_size) AS batch_size, any_value(mode) AS mode,
    any_value(hparams_digest) AS hparams_digest, any_value(given_contexts) AS given_contexts,
    any_value(given_targets) AS given_targets,
    any_value(numbers) AS numbers, any_value(guard) AS guard,
    any_value(prefixes) AS prefixes, any_value(moments) AS moments
FROM run_setting
GROUP BY setting
