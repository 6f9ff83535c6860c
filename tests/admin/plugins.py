"""A connector with a setting of every form: what the admin has to make fields of."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context


class VaultConfig(BaseModel):
    """How to reach a vault."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(description="Where the vault stands.")
    shelf: Literal["upper", "lower"] = Field(default="upper", description="Which shelf is read.")
    depth: int = Field(default=3, ge=1, le=9, description="How far to reach.")
    patience_s: float | None = Field(default=None, gt=0, description="How long to wait.")
    is_quiet: bool = Field(default=True, description="Whether to knock.")
    names: tuple[str, ...] = Field(default=(), description="What to fetch.")
    labels: dict[str, int] = Field(default_factory=dict, description="Marks of the shelves.")
    password: SecretStr = Field(description="Opens the door.")
    second_key: SecretStr | None = Field(default=None, description="Opens the inner door.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Shown at the door.")

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        if " " in address:
            msg = "write the address without blanks"
            raise ValueError(msg)
        return address


class VaultConnector:
    """Reads what lies in a vault."""

    kind: ClassVar[str] = "vault"
    Config: ClassVar[type[BaseModel]] = VaultConfig

    def __init__(self, config: Any) -> None:
        self._config = config

    def streams(self) -> Sequence[Stream]:
        """Return two streams, one of which can be read incrementally."""
        return (Stream("coins", key=("id",)), Stream("notes", key=("id",), cursor_field="changed_at"))

    def check(self, ctx: Context) -> CheckReport:
        """Return that the door opens and the inner door does not."""
        return CheckReport(
            (
                Finding("door", ok=True, elapsed_ms=1.25),
                Finding("inner door", ok=False, elapsed_ms=2.5, detail="<b>shut</b>", fix="Turn the second key."),
            )
        )
