-- Causal tracing: average indirect effect (probability restored minus corrupted) by state kind, layer and token role. Only
-- facts that the model knows are traced: `n_unknown` were looked at and skipped (NULL, as `model`, in stores that did not keep
-- it). Of MLP and attention `window` layers are restored together, from layer - window // 2 on: an effect is of one of them, and a
-- step between two layers says which has entered or left.
--
-- unique: [run_id, kind, layer, role]
-- not_null: [run_id, kind, layer, role, effect, n_facts]
-- accepted: {kind: [hidden, mlp, attention]}
SELECT
    run_id, any_value(model) AS model, kind, layer, role,
    avg(probability - low) AS effect,
    avg(high - low) AS total_effect,
    count(DISTINCT fact_id) AS n_facts,
    any_value(n_unknown) AS n_unknown,
    any_value(CASE WHEN kind = 'hidden' THEN 1 ELSE restored END) AS "window"
FROM traces
LEFT JOIN (
    SELECT run_id, any_value((spec->>'window')::BIGINT) AS restored
    FROM commits WHERE commits.kind = 'trace' AND status = 'done' GROUP BY run_id
) USING (run_id)
LEFT JOIN (
    SELECT run_id, spec->>'model' AS model, (spec->>'asked')::BIGINT - json_array_length(spec->'known') AS n_unknown
    FROM commits WHERE kind = 'known' AND status = 'done'
) USING (run_id)
GROUP BY ALL
ORDER BY run_id, kind, role, layer
