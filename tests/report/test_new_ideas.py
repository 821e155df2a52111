"""A new flag or cause stands in so few places, and one that was forgotten is named.

In a scratch copy of the package, as somebody would write them.
"""

from pathlib import Path

import pytest

from capi_middleware.report.flags import CHECKS
from demo.faults import FAULTS, PAUSED
from tests.support.ideas import forgotten
from tests.support.processes import ROOT
from tests.support.scratch import Scratch

FLAGS = "capi_middleware/report/flags"
NEW_FLAG = '''

@check
def moon_is_full(facts: Facts) -> Flags:
    """The moon is full."""
    for event in facts.events:
        yield flag("warning", event.place, value=1, explanation="It shines.", fix="Wait a day.")
'''
NEW_TEXTS = """
[moon_is_full]
title = "The moon is full"
plain = "It is bright at night."
"""
NEW_CAUSE = """[browser.moonlight]
title = "The moon shone on it"
plain = "It was bright at night."
because = "the moon shone on it"
fix = "Draw the curtains."

"""
#: Reports on an event whose browser copy the moon took, and says what was forgotten.
SHOW = """
import json, sys
from pathlib import Path
import capi_middleware
from capi_middleware.report.csv import to_csv
from capi_middleware.report.html import to_html, to_json
from tests.support.ideas import forgotten
from tests.support.tallies import report_on, tally
assert capi_middleware.__file__.startswith(sys.argv[1]), capi_middleware.__file__
made = report_on(tally("delivered", "moonlight", 9))
print(json.dumps({
    "flags": json.loads(to_json(made))["flags"],
    "html": to_html(made, path="/", query="", nonce=""),
    "csv": to_csv(made).partition("\\r\\n")[0],
    "forgotten": forgotten(Path(sys.argv[1], "demo/README.md")),
}))
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def test_nothing_is_forgotten() -> None:
    assert forgotten(ROOT / "demo/README.md") == []


def test_the_flags_of_the_demo_are_there() -> None:
    told = {code for fault in FAULTS.values() for code, _ in fault.flags} | {PAUSED[0]}
    assert told <= CHECKS.keys()


def test_a_new_flag_is_one_function_and_its_texts(scratch: Scratch) -> None:
    scratch.write(f"{FLAGS}/copies.py", "", NEW_FLAG)
    scratch.write(f"{FLAGS}/texts.toml", "", NEW_TEXTS)
    shown = scratch.ran(SHOW)
    (flag,) = (one for one in shown["flags"] if one["code"] == "moon_is_full")
    assert (flag["event_name"], flag["severity"]) == ("Purchase", "warning")
    assert "It shines." in shown["html"]
    assert shown["forgotten"] == []
    assert scratch.touched == {f"{FLAGS}/copies.py", f"{FLAGS}/texts.toml"}


def test_a_new_cause_is_a_word_and_its_meaning(scratch: Scratch) -> None:
    scratch.write("capi_middleware/events.py", '"replay", "other_name"]', '"moonlight", ')
    scratch.write("capi_middleware/report/causes.toml", "[browser.replay]", NEW_CAUSE)
    shown = scratch.ran(SHOW)
    (flag,) = (one for one in shown["flags"] if one["code"] == "browser_missing")
    assert "because the moon shone on it (moonlight: 9 of 9)" in flag["explanation"]
    assert flag["fix"] == "Draw the curtains."
    assert "9 moonlight" in shown["html"]
    assert "missing_browser: moonlight" in shown["csv"]
    assert shown["forgotten"] == []
    assert scratch.touched == {"capi_middleware/events.py", "capi_middleware/report/causes.toml"}


def test_each_forgotten_place_is_named(scratch: Scratch) -> None:
    scratch.write(f"{FLAGS}/moon.py", "", "from capi_middleware.report.flags.registry import *\n")
    scratch.write(f"{FLAGS}/copies.py", "", NEW_FLAG.replace("@check\n", ""))
    scratch.write(f"{FLAGS}/site.py", "", NEW_FLAG.replace("moon_is_full", "moon_is_new"))
    scratch.write(f"{FLAGS}/texts.toml", "", '[moon_is_old]\ntitle = "It"\nplain = "Is."\n')
    scratch.write(
        "capi_middleware/events.py", '"request_blocked", "request_replaced"', '"moonlight", '
    )
    assert scratch.ran(SHOW)["forgotten"] == [
        "report/flags/__init__.py: SUBJECTS does not import moon.py",
        "report/flags/copies.py: moon_is_full has no @check",
        "report/flags/texts.toml: no check is called moon_is_old",
        "report/flags/texts.toml: moon_is_new is not there",
        "report/causes.toml: browser has no moonlight",
        "page/script: nothing says moonlight, see events.BEACON_OUTCOMES",
    ]
