"""What a plain page loads stays light."""

import gzip

from tests.support.script import FIRST, made, source


def test_what_runs_before_the_events_are_out_has_at_most_3_kb() -> None:
    """A site's own files apart: foreign.js is for pages that the app does not answer."""
    assert len(gzip.compress(made(source(FIRST)).encode(), 9)) <= 3072
