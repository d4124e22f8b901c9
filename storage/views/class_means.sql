-- kept
-- F1 over the labels of a cell, plain (`f1`) and weighted by how often each is right, and the sums that its correlation needs.
SELECT
    cell,
    avg(f1) FILTER (WHERE is_label) AS f1,
    count(*) FILTER (WHERE is_label) AS n_labels,
    sum(n_gold * f1) / sum(n_gold) AS f1_weighted,
    sum(n_gold * n_said) AS products, sum(n_said * n_said) AS said_squares, sum(n_gold * n_gold) AS gold_squares
FROM class_scores
GROUP BY cell
