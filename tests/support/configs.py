"""Configurations that tests start from."""

from typing import Any

from capi_middleware import Config, Pixel

SECRET = "a-secret-for-tests-of-more-than-32-characters"
PIXEL_ID = "1234567890"
TOKEN = "test-access-token"
REPORT_TOKEN = "the-report-token"


def make_config(**settings: Any) -> Config:
    """One pixel, in memory, without delivery; `settings` go to Config."""
    given: dict[str, Any] = {
        "secret_key": SECRET,
        "pixels": [Pixel(PIXEL_ID, access_token=TOKEN)],
        "store": "memory:",
        "report_token": REPORT_TOKEN,
        "delivery": False,
        # Most tests of jobs are about something else.
        "action_source": "system_generated",
    }
    return Config(**{**given, **settings})
