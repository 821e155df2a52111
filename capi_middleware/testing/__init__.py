"""What users of the product test their own apps with: captured events, a fake Meta, a clock."""

from capi_middleware.testing.capture import Captured, capture
from capi_middleware.testing.clock import FrozenClock
from capi_middleware.testing.fake_meta import FakeMeta, create_app
from capi_middleware.testing.memory import MemoryStore

__all__ = ["Captured", "FakeMeta", "FrozenClock", "MemoryStore", "capture", "create_app"]
