-- Causal tracing: average indirect effect (probability restored minus corrupted) by state kind, layer and token role.
SELECT
    run_id, kind, layer, role,
    avg(probability - low) AS effect,
    avg(high - low) AS total_effect,
    count(DISTINCT fact_id) AS n_facts
FROM traces
GROUP BY ALL
ORDER BY run_id, kind, role, layer
