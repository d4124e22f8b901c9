-- Rules of scoring that several marts share.

-- Whether one answer is likelier than another, each by its mean NLL per token. What the model did not give (NULL) fails.
CREATE MACRO is_likelier(nll, n, other_nll, other_n) AS coalesce(nll / n < other_nll / other_n, false);

-- Whether every token of an answer was the likeliest one.
CREATE MACRO is_argmax(n_correct, n) AS coalesce(n_correct = n, false);

-- The harmonic mean of three rates, 0 where one of them is; NULL where one was not measured.
CREATE MACRO harmonic_mean(a, b, c) AS CASE
    WHEN a IS NULL OR b IS NULL OR c IS NULL THEN NULL
    WHEN least(a, b, c) <= 0 THEN 0
    ELSE 3 / (1 / a + 1 / b + 1 / c)
END;
