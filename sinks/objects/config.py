"""Settings of the destination: where the files go, in what form, and who may write there."""

import re
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ingestion.ports.batch import CLEAN_COLUMNS
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.s3_options import Encryption, StorageOptions, parse_s3_url
from sinks.objects.keys import parse_template
from sinks.objects.layout import Format, Layout

MAX_TAGS = 10
MAX_TAG_KEY = 128
MAX_TAG_VALUE = 256
MAX_PARTITION_COLUMNS = 4
_TAG = re.compile(r"[\w+\-=.:/@ ]*")


class ObjectsConfig(BaseModel):
    """Place of the files and the right to write there; without keys those of the machine's environment are used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        min_length=1,
        description="A folder as an absolute path, or s3://bucket/prefix?endpoint=https://host&region=name",
    )
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    format: Format = Field("parquet", description="parquet: the checked rows as they are; jsonl, csv: as text")
    gzip: bool = Field(default=False, description="Compress jsonl and csv")
    defuse_formulas: bool = Field(
        default=True,
        description="csv: put an apostrophe before text that a spreadsheet would run as a formula (this changes the cell)",
    )
    partition_by: tuple[str, ...] = Field(
        (), description="Columns whose values become folders, column=value; a time column by its day"
    )
    key_template: str = Field(
        "{pipeline}/{run}/{part}", description="Where files lie, of {pipeline}, {run}, {date} (the logical day), {part}"
    )
    sse: Encryption | None = Field(None, description="Encryption at rest, for buckets")
    kms_key: str | None = Field(None, description="aws:kms: id or ARN of the key; else the bucket's own")
    tags: dict[str, str] = Field(default_factory=dict, description='Tags of every object, as in {"team": "materials"}')
    compact_to_mb: int = Field(128, ge=1, le=4096, description="Size that compaction brings small files to")
    grace_hours: int = Field(24, ge=0, description="How long files stay that are no longer part of what is published")

    @field_validator("url")
    @classmethod
    def _is_usable(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "s3":
            if {"access_key", "secret_key"} & set(parse_qs(parts.query, keep_blank_values=True)):
                msg = "credentials do not belong into the address: write them into access_key and secret_key"
                raise ValueError(msg)
            try:
                parse_s3_url(url)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        elif "://" in url and parts.scheme != "file":
            msg = "write a folder, file:///folder or s3://bucket/prefix"
            raise ValueError(msg)
        elif parts.scheme != "file" and not Path(url).is_absolute():
            msg = "write the folder as an absolute path: a relative one would depend on where a worker was started"
            raise ValueError(msg)
        return url

    @field_validator("key_template")
    @classmethod
    def _names_no_two_files_alike(cls, text: str) -> str:
        parse_template(text)
        return text

    @field_validator("partition_by")
    @classmethod
    def _names_columns_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or len(names) > MAX_PARTITION_COLUMNS or not all(names):
            raise ValueError(f"name up to {MAX_PARTITION_COLUMNS} columns, each once")
        if set(names) & set(CLEAN_COLUMNS):
            raise ValueError(f"{', '.join(CLEAN_COLUMNS)} say where a row comes from; choose a column of the data")
        return names

    @field_validator("tags")
    @classmethod
    def _are_allowed(cls, tags: dict[str, str]) -> dict[str, str]:
        if len(tags) > MAX_TAGS:
            raise ValueError(f"an object can have {MAX_TAGS} tags")
        for key, value in tags.items():
            if not 0 < len(key) <= MAX_TAG_KEY or len(value) > MAX_TAG_VALUE:
                raise ValueError(f"a tag has 1 to {MAX_TAG_KEY} characters and its value up to {MAX_TAG_VALUE}")
            if not _TAG.fullmatch(key) or not _TAG.fullmatch(value) or key.lower().startswith("aws:"):
                raise ValueError(
                    "a tag is of letters, digits, blanks and + - = . _ : / @, and does not begin with aws:"
                )
        return tags

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.gzip and self.format == "parquet":
            raise ValueError("gzip is for jsonl and csv; Parquet files are compressed inside")
        if self.kms_key and self.sse != "aws:kms":
            raise ValueError("kms_key needs sse: aws:kms")
        if urlsplit(self.url).scheme != "s3" and (self.sse or self.tags):
            raise ValueError("sse and tags are for buckets, a folder has neither")
        return self

    @property
    def occupies(self) -> str:
        """Return the address: everything below it is the destination's."""
        return self.url

    @property
    def is_shared(self) -> bool:
        """Return False: files of two would be removed as those of one."""
        return False

    @property
    def layout(self) -> Layout:
        """Return the form that files get."""
        return Layout(
            format=self.format,
            is_gzipped=self.gzip,
            partition_by=self.partition_by,
            defuse_formulas=self.defuse_formulas,
        )

    @property
    def place(self) -> str:
        """Return the address without its options, for messages."""
        return self.url.partition("?")[0]

    def opening(self) -> dict[str, Any]:
        """Return what `open_lake` needs beside the address."""
        return {
            "access_key": self.access_key.get_secret_value() if self.access_key else None,
            "secret_key": self.secret_key.get_secret_value() if self.secret_key else None,
            "storage": StorageOptions(encryption=self.sse, kms_key=self.kms_key, tags=self.tags),
        }
