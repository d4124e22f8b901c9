-- Scores against batch size, means over samples and seeds.
SELECT
    model, editor, variant, layers, mode, protocol, hparams_digest, batch_size,
    count(*) AS n_runs,
    min(edits) AS edits,
    avg(efficacy) AS efficacy,
    avg(paraphrase) AS paraphrase,
    avg(neighborhood) AS neighborhood,
    avg(score) AS score,
    avg(forgotten) AS forgotten,
    avg(drift) AS drift,
    avg(benchmark_f1) AS benchmark_f1
FROM run_summary
WHERE editor <> 'none'
GROUP BY ALL
ORDER BY model, editor, batch_size
