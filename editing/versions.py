"""Versions of what is computed and kept; they stand in identities, so that old and new numbers never meet."""

SCORING_VERSION = 2
"""Raised when a probe's score changes meaning or value; then all scores of a run are made again."""
TARGETS_VERSION = 1
"""Raised when the same search finds other targets than before."""
