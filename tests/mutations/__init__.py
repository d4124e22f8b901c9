"""Broken inputs: every file that the product reads, spoilt in seeded ways, and what is said of each."""
