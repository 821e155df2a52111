"""What users of the product test their own apps with: captured events, a fake Meta, a clock."""

from capi_middleware.testing.capture import Captured, capture
from capi_middleware.testing.fake_meta import FakeMeta, create_app
from capi_middleware.testing.memory import FrozenClock, MemoryStore

__all__ = ["Captured", "FakeMeta", "FrozenClock", "MemoryStore", "capture", "create_app"]
