-- step
-- Every metric of a benchmark with its standard error, of the whole (`part` NULL) and of each group. An answer that is no
-- label, does not fit into the context or is NaN is wrong. Where all examples have the same labels: F1 as the mean over the
-- labels (`f1`) and weighted by how often each is right (`f1_weighted`), and Matthews' correlation over the labels with
-- "no label" as a class of its own (`mcc`, 0 if a side has one class only).
-- Standard errors are infinitesimal jackknives: sqrt(sum psi²), psi an example's influence on the metric.
WITH totals AS (
    SELECT
        cell, any_value(run_id) AS run_id, any_value(benchmark) AS benchmark,
        any_value(questions_run_id) AS questions_run_id, any_value(scored_at) AS scored_at,
        any_value(edits_so_far) AS edits, any_value(part) AS part, any_value(is_start) AS is_start, any_value(n_shots) AS n_shots,
        any_value(shots_from) AS shots_from, count(*) AS n_examples,
        avg(correct) AS accuracy, sqrt(accuracy * (1 - accuracy) / n_examples) AS accuracy_stderr,
        avg(value) AS mean_value, coalesce(stddev_pop(value), 0) / sqrt(n_examples) AS mean_value_stderr,
        avg((outcome = 'invalid')::INT) AS invalid, avg((outcome = 'too_long')::INT) AS too_long,
        avg((outcome = 'nan')::INT) AS is_nan, sum(correct) AS hits
    FROM answers_by_part
    GROUP BY cell
),
influences AS (
    SELECT
        answer.cell,
        answer.correct AS hit,
        -- What the example adds to the F1 of its right class and of the class that was said.
        CASE WHEN answer.gold = answer.said THEN (2 - 2 * g.f1) / g.named ELSE -g.f1 / g.named END AS of_gold,
        CASE WHEN answer.gold = answer.said THEN 0 ELSE -s.f1 / s.named END AS of_said,
        g.f1 AS gold_f1, g.n_gold AS gold_n, s.n_gold AS said_as_gold,
        g.n_said AS gold_as_said, s.n_said AS said_n,
        t.hits, t.n_examples AS n, o.*,
        o.products AS pt, n * n - o.said_squares AS a, n * n - o.gold_squares AS b,
        CASE WHEN a * b = 0 THEN 0 ELSE (t.hits * n - pt) / sqrt(a * b) END AS mcc
    FROM answers_by_part AS answer
    JOIN totals AS t USING (cell)
    JOIN class_means AS o USING (cell)
    JOIN class_scores AS g ON g.cell = answer.cell AND g.class = answer.gold
    JOIN class_scores AS s ON s.cell = answer.cell AND s.class = answer.said
    WHERE answer.has_labels
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
    r.* EXCLUDE (run_id), totals.* EXCLUDE (cell, hits),
    labelled.* EXCLUDE (cell)
FROM totals
JOIN run_columns AS r USING (run_id)
LEFT JOIN labelled USING (cell)
