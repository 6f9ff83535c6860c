"""A fake Druid for tests."""

from tests.fakes.druid.fake import FakeDruid

__all__ = ["FakeDruid"]
