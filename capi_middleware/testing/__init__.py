"""What users of the product test their own apps with: captured events, a fake Meta, a clock."""

from capi_middleware.testing.capture import Captured, FrozenClock, MemoryStore, capture
from capi_middleware.testing.fake_meta import FakeMeta, create_app

__all__ = ["Captured", "FakeMeta", "FrozenClock", "MemoryStore", "capture", "create_app"]
