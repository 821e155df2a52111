"""What users of the product test their own apps with: a fake Meta."""

from capi_middleware.testing.fake_meta import FakeMeta, create_app

__all__ = ["FakeMeta", "create_app"]
