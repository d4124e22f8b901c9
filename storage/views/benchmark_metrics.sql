-- Every metric of a benchmark with its standard error, of the whole (`part` NULL) and of each group. An answer that is no
-- label, does not fit into the context or is NaN is wrong. Where all examples have the same labels: F1 as the mean over the
-- labels (`f1`) and weighted by how often each is right (`f1_weighted`), and Matthews' correlation over the labels with
-- "no label" as a class of its own (`mcc`, 0 if a side has one class only).
-- Standard errors are infinitesimal jackknives: sqrt(sum psi²), psi an example's influence on the metric.
-- Two commands at once may have asked the same question; the answers are the same.
WITH once AS (
    SELECT DISTINCT ON (run_id, questions_run_id, scored_at, example_id) *
    FROM benchmark_answers
    ORDER BY run_id, questions_run_id, scored_at, example_id, unit_id
),
answers AS (
    SELECT
        run_id, benchmark, questions_run_id, scored_at, edits_so_far, n_shots, shots_from,
        unnest(CASE WHEN subset = '' THEN [NULL] ELSE [NULL, subset] END) AS part,
        labels, gold, coalesce(predicted, '') AS said, correct::INT AS correct, value, outcome
    FROM once
),
-- Short keys: one number for each (run, questions, checkpoint, part).
keyed AS (
    SELECT
        dense_rank() OVER (ORDER BY run_id, questions_run_id, scored_at, part) AS cell,
        *,
        count(DISTINCT labels) OVER (PARTITION BY run_id, questions_run_id, scored_at, part) = 1 AND len(labels) > 1
            AS has_labels
    FROM answers
),
totals AS (
    SELECT
        cell, any_value(run_id) AS run_id, any_value(benchmark) AS benchmark,
        any_value(questions_run_id) AS questions_run_id, any_value(scored_at) AS scored_at,
        any_value(edits_so_far) AS edits, any_value(part) AS part, any_value(n_shots) AS n_shots,
        any_value(shots_from) AS shots_from, count(*) AS n_examples,
        avg(correct) AS accuracy, sqrt(accuracy * (1 - accuracy) / n_examples) AS accuracy_stderr,
        avg(value) AS mean_value, coalesce(stddev_pop(value), 0) / sqrt(n_examples) AS mean_value_stderr,
        avg((outcome = 'invalid')::INT) AS invalid, avg((outcome = 'too_long')::INT) AS too_long,
        avg((outcome = 'nan')::INT) AS is_nan, sum(correct) AS hits
    FROM keyed
    GROUP BY cell
),
classes AS (
    SELECT cell, class, sum(gold) AS n_gold, sum(said) AS n_said, sum(hit) AS n_hit, bool_or(is_label) AS is_label
    FROM (
        SELECT cell, gold AS class, 1 AS gold, 0 AS said, (gold = said)::INT AS hit, true AS is_label FROM keyed WHERE has_labels
        UNION ALL
        SELECT cell, said, 0, 1, 0, list_contains(labels, said) FROM keyed WHERE has_labels
        UNION ALL
        SELECT DISTINCT cell, unnest(labels), 0, 0, 0, true FROM keyed WHERE has_labels
    )
    GROUP BY cell, class
),
per_class AS (
    SELECT *, n_gold + n_said AS named, CASE WHEN named = 0 THEN 0 ELSE 2 * n_hit / named END AS f1 FROM classes
),
over_classes AS (
    SELECT
        cell,
        avg(f1) FILTER (WHERE is_label) AS f1,
        count(*) FILTER (WHERE is_label) AS n_labels,
        sum(n_gold * f1) / sum(n_gold) AS f1_weighted,
        sum(n_gold * n_said) AS products, sum(n_said * n_said) AS said_squares, sum(n_gold * n_gold) AS gold_squares
    FROM per_class
    GROUP BY cell
),
influences AS (
    SELECT
        keyed.cell,
        keyed.correct AS hit,
        -- What the example adds to the F1 of its right class and of the class that was said.
        CASE WHEN keyed.gold = keyed.said THEN (2 - 2 * g.f1) / g.named ELSE -g.f1 / g.named END AS of_gold,
        CASE WHEN keyed.gold = keyed.said THEN 0 ELSE -s.f1 / s.named END AS of_said,
        g.f1 AS gold_f1, g.n_gold AS gold_n, s.n_gold AS said_as_gold,
        g.n_said AS gold_as_said, s.n_said AS said_n,
        t.hits, t.n_examples AS n, o.*,
        o.products AS pt, n * n - o.said_squares AS a, n * n - o.gold_squares AS b,
        CASE WHEN a * b = 0 THEN 0 ELSE (t.hits * n - pt) / sqrt(a * b) END AS mcc
    FROM keyed
    JOIN totals AS t USING (cell)
    JOIN over_classes AS o USING (cell)
    JOIN per_class AS g ON g.cell = keyed.cell AND g.class = keyed.gold
    JOIN per_class AS s ON s.cell = keyed.cell AND s.class = keyed.said
    WHERE keyed.has_labels
),
labelled AS (
    SELECT
        cell, any_value(f1) AS f1, any_value(f1_weighted) AS f1_weighted, any_value(mcc) AS mcc,
        sqrt(sum(pow((of_gold + of_said) / n_labels, 2))) AS f1_stderr,
        sqrt(sum(pow((gold_n * of_gold + said_as_gold * of_said + gold_f1 - f1_weighted) / n, 2))) AS f1_weighted_stderr,
        CASE
            WHEN any_value(a * b) = 0 THEN 0
            ELSE sqrt(sum(pow(
                (hit * n + hits - said_as_gold - gold_as_said) / sqrt(a * b)
                - mcc / 2 * ((2 * n - 2 * said_n) / a + (2 * n - 2 * gold_n) / b), 2
            )))
        END AS mcc_stderr
    FROM influences
    GROUP BY cell
)
SELECT
    runs.editor, runs.batch_size, runs.model, runs.sample, totals.* EXCLUDE (cell, hits),
    labelled.* EXCLUDE (cell)
FROM totals
JOIN runs USING (run_id)
LEFT JOIN labelled USING (cell)
