"""A figure in seconds or megabytes with its upper limit."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limited:
    """One row of the table."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def ok(self) -> bool:
        return self.value <= self.limit

    def row(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}
