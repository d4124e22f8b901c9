"""What can go wrong in the store.

    StorageError
    ├── StoreVersionError    the store was written with another schema version
    ├── DamagedFileError     a committed file is missing, truncated or unreadable
    ├── ArtifactMismatch     an artifact's content or recipe is not what its name says
    └── QueryError           SQL that DuckDB refuses

Every message says what was found, what was expected, and what to do.
"""


class StorageError(Exception):
    """Base of all errors of this package."""


class StoreVersionError(StorageError):
    """The store was written with another schema version."""


class DamagedFileError(StorageError):
    """A committed file is missing, truncated or unreadable."""


class ArtifactMismatch(StorageError):
    """An artifact's content or recipe is not what its name says."""


class QueryError(StorageError):
    """SQL that DuckDB refuses."""
