"""The outcome of a check: which layer between here and a place holds, and what to do where one does not."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """One step of a check: which layer, whether it held, how long it took, and what to do where it did not."""

    layer: str
    ok: bool
    elapsed_ms: float
    detail: str = ""
    fix: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings of a check, in the order it looked; the first finding that is not ok names the failing layer."""

    findings: tuple[Finding, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Return whether every layer held."""
        return all(finding.ok for finding in self.findings)
