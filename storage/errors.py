"""What can go wrong in the store.

    StorageError
    ├── StoreVersionError    the store was written with another schema version
    ├── DamagedFileError     a committed file is missing, truncated or unreadable
    ├── ArtifactMismatch     an artifact's content or recipe is not what its name says
    ├── MergeConflict        two stores disagree on what one unit or artifact holds
    ├── StoreUnavailableError  the store does not answer, is full, or is not mounted
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


class MergeConflict(StorageError):
    """Two stores disagree on what one unit or artifact holds."""


class StoreUnavailableError(StorageError):
    """The store does not answer, is full, or is not mounted; nothing is lost, and it may come back."""


class QueryError(StorageError):
    """SQL that DuckDB refuses."""
