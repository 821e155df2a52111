"""A beacon says what became of events: words that can be shown anywhere."""

import msgspec
import pytest

from capi_middleware.capture.beacon import read
from capi_middleware.errors import BadBeacon


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\n2026 ERROR evil", "\x00", "a\x9b2J", "\x7f"])
def test_a_name_that_would_write_in_a_terminal_or_a_log_is_no_name(name: str) -> None:
    with pytest.raises(BadBeacon):
        read(msgspec.json.encode({"e": [["id", name, "123", "sent"]]}), lambda *_: "")
