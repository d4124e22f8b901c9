-- Causal tracing: average indirect effect (probability restored minus corrupted) by state kind, layer and token role. Only
-- facts that the model knows are traced: `n_unknown` were looked at and skipped (NULL, as `model`, in stores that did not keep
-- it).
--
-- unique: [run_id, kind, layer, role]
-- not_null: [run_id, kind, layer, role, effect, n_facts]
-- accepted: {kind: [hidden, mlp, attention]}
SELECT
    run_id, any_value(model) AS model, kind, layer, role,
    avg(probability - low) AS effect,
    avg(high - low) AS total_effect,
    count(DISTINCT fact_id) AS n_facts,
    any_value(n_unknown) AS n_unknown
FROM traces
LEFT JOIN (
    SELECT run_id, spec->>'model' AS model, (spec->>'asked')::BIGINT - json_array_length(spec->'known') AS n_unknown
    FROM commits WHERE kind = 'known' AND status = 'done'
) USING (run_id)
GROUP BY ALL
ORDER BY run_id, kind, role, layer
