-- One row per run: the columns that papers print, over all edits made so far: each right after its own round, and
-- (`final_…`, over `n_final` edits) all of them on the model as the last round left it; NULL until the last checkpoint stands
-- there, where retention is not scored, and of independent batches.
-- `forgotten`: of the `n_right_when_applied` edits that were right when applied and that a later round followed, the share
-- that the last checkpoint finds wrong; NULL where nothing followed them. `collapsed_at`: the edits at the first checkpoint
-- from which on the model has lost what it knew and what it was taught (`collapse_curve`); NULL if never, or if no checkpoint
-- could judge (`n_judged` 0: of neighbors, benchmarks and earlier edits fewer than two were measured). `lost_at`:
-- the first checkpoint at which both were lost, even if not for good.
--
-- unique: [run_id]
-- not_null: [run_id, model, editor, layers, batch_size, mode, sample, seed, protocol, algorithm_version, edits]
-- rates: [efficacy, paraphrase, neighborhood, score, final_efficacy, final_paraphrase, final_neighborhood, final_score, forgotten, benchmark_f1]
-- accepted: {mode: [sequential, independent], protocol: [paper, code, corrected]}
-- references: {run_id: runs.run_id}
WITH rates AS (
    SELECT
        run_id,
        avg(efficacy) AS efficacy,
        avg(paraphrase) AS paraphrase,
        avg(neighborhood) AS neighborhood
    FROM own_rates
    GROUP BY run_id
),
final_means AS (
    SELECT
        run_id,
        avg(efficacy) AS final_efficacy,
        avg(paraphrase) AS final_paraphrase,
        avg(neighborhood) AS final_neighborhood,
        count(*) AS n_final
    FROM final_rates
    GROUP BY run_id
),
last_check AS (
    SELECT run_id, forgotten, n_right_when_applied
    FROM check_rates
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY scored_at DESC) = 1
),
moved AS (
    SELECT run_id, max(drift) AS drift
    FROM (
        SELECT run_id, parameter, last(drift ORDER BY round) AS drift FROM rounds GROUP BY run_id, parameter
    )
    GROUP BY run_id
),
downstream AS (
    SELECT run_id, avg(f1) AS benchmark_f1
    FROM (
        SELECT run_id, questions_run_id, arg_max(f1, edits_so_far) AS f1
        FROM (SELECT DISTINCT cell, run_id, questions_run_id, edits_so_far FROM answers_by_part WHERE part IS NULL)
        JOIN class_means USING (cell)
        GROUP BY ALL
    )
    GROUP BY run_id
),
collapse AS (
    SELECT
        run_id, min(edits) FILTER (WHERE collapsed) AS collapsed_at, min(edits) FILTER (WHERE lost) AS lost_at,
        count(*) FILTER (WHERE is_judged) AS n_judged
    FROM collapse_curve GROUP BY run_id
),
final AS (
    SELECT
        run.run_id,
        run.model,
        run.editor,
        run.variant,
        run.hparams_digest,
        run.preset,
        run.effective_ridge,
        run.layers,
        run.batch_size,
        run.mode,
        run.sample,
        run.seed,
        run.protocol,
        run.algorithm_version,
        run.edits,
        rates.efficacy,
        rates.paraphrase,
        rates.neighborhood,
        harmonic_mean(rates.efficacy, rates.paraphrase, rates.neighborhood) AS score,
        final_means.final_efficacy,
        final_means.final_paraphrase,
        final_means.final_neighborhood,
        harmonic_mean(final_efficacy, final_paraphrase, final_neighborhood) AS final_score,
        coalesce(final_means.n_final, 0) AS n_final,
        last_check.forgotten,
        last_check.n_right_when_applied,
        moved.drift,
        downstream.benchmark_f1,
        collapse.collapsed_at,
        collapse.lost_at,
        coalesce(collapse.n_judged, 0) AS n_judged
    FROM run_latest AS run
    LEFT JOIN rates USING (run_id)
    LEFT JOIN final_means USING (run_id)
    LEFT JOIN last_check USING (run_id)
    LEFT JOIN moved USING (run_id)
    LEFT JOIN downstream USING (run_id)
    LEFT JOIN collapse USING (run_id)
)
SELECT * FROM final ORDER BY model, editor, batch_size, sample, run_id
