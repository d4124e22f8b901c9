"""A generated world of facts, and the models that are grown on it."""
