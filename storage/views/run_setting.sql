-- kept
-- What each run of edits is an instance of. A `setting` is all that determines a run's weights but for its sample and seed; two
-- runs of one `pool` edited the same model and data set in the same mode, so that their settings can be compared; two of one
-- `draw` took the same facts in the same order.
WITH described AS (
    SELECT
        *,
        coalesce(json_merge_patch(
            spec->'hparams', '{"training_seed": null, "value_seed": null, "direction_seed": null}'
        )::VARCHAR, hparams_digest) AS numbers,
        json_merge_patch(spec->'contexts_recipe', '{"seed": null}')::VARCHAR AS contexts_recipe,
        json_merge_patch(spec->'network_recipe', '{"seed": null, "hparams": {"training_seed": null}}')::VARCHAR AS network,
        spec->'moments_recipe' AS moments,
        nullif(spec->>'guard', 'null') AS guard,
        left(spec->'targets'->>'digest', 8) AS given_targets,
        (
            model_digest, dtype, facts_run_id, spec->'model'->'chat', spec->'model'->>'text_start',
            spec->'model'->>'adapter_digest', spec->'model'->'particulars'
        )::VARCHAR AS subject
    FROM runs
    WHERE editor <> 'none'
)
SELECT
    run_id,
    left(md5((
        subject, editor, algorithm_version, numbers, layers, batch_size, mode, contexts_recipe, moments, network, guard
    )::VARCHAR || coalesce(given_targets, '')), 10) AS setting,
    left(md5((subject, mode)::VARCHAR), 10) AS pool,
    coalesce(spec->'facts'->>'order_digest', (spec->'facts'->>'sample_seed', sample)::VARCHAR) AS draw,
    model, dtype, facts, editor, variant, preset, protocol, layers, batch_size, mode, hparams_digest,
    left(md5(spec->'contexts_recipe'->>'texts'), 8) AS given_contexts, given_targets, left(md5(numbers), 12) AS numbers,
    left(md5(contexts_recipe), 8) AS prefixes, left(md5(nullif(moments::VARCHAR, 'null')), 8) AS moments, guard, sample, seed
FROM described
