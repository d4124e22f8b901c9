"""Versions of what is computed and kept; they stand in identities, so that old and new numbers never meet."""

SCORING_VERSION = 2
"""Raised when a probe's score changes meaning or value; then all scores of a run are made again."""
TARGETS_VERSION = 1
"""Raised when the same search finds other targets than before."""

# The first of these stands in no identity.
MOMENTS_VERSION = 1
"""Raised when the same texts give other second moments than before."""
OWN_TEXTS_VERSION = 1
"""Raised when the unedited model samples other texts than before."""
CONTEXTS_VERSION = 1
"""Raised when it samples other context prefixes than before."""
TRACING_VERSION = 1
"""Raised when the same facts are traced to other probabilities than before."""
