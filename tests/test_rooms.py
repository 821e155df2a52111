"""A new idea finds its room: so few files for each, and one that was forgotten is named.

Each idea is written into a scratch copy of the package, as somebody would, and tried there. Flags
and causes are in tests/report/test_new_ideas.py.
"""

from pathlib import Path

import pytest

from tests.support.scratch import Scratch

FORGOTTEN = """
import json, sys
from pathlib import Path
from tests.support.ideas import forgotten
print(json.dumps(forgotten(Path(sys.argv[1], "demo/README.md"))))
"""
#: A tracked Lead with `extra` keyword arguments, and what a fake Meta and the store have of it.
TRACKED = """
import json, sys
from capi_middleware import CAPI, Config, Pixel, UserData
from capi_middleware.testing import FakeMeta
store = sys.argv[2]
meta = FakeMeta()
with meta.serve() as url:
    pixels = [Pixel("123", access_token="t")]
    config = Config("a-key-of-32-letters-for-a-test-!", pixels, store=store, graph_url=url,
                    action_source="system_generated")
    capi = CAPI(config)
    EVENT = capi.track("Lead", user_data=UserData(em="a@b.example", **json.loads(sys.argv[3])))
    assert capi.flush(20)
    TOLD = [one.event for one in meta.received.server]
    KNOWN = capi.store.find([EVENT.event_id])
    REPORT = capi.store.tallies(0, 1e12)
"""

MATCH_KEY = "    MatchKey('shoe_size', lower=rules.letters, what='the size of the shoes'),\n"
LAST_KEY = '    MatchKey("whatsapp_business_account_id"'

CONSENT_RULE = '    "moon": ReadyRule("moonCookie", ("ads",), _pairs),\n'
CODE = """[[meaning]]
codes = ["4711"]
kind = "throttled"
meaning = "the moon is full"
fix = "Wait for the new moon."

"""
ENDPOINT = '            "moon": (frozenset({"GET"}), self._moon),\n'
HANDLER = """    async def _moon(self, asked: Asked) -> Response:
        return Response("it shines", media_type="text/plain")

"""
COMMAND = '''"""moon: how it shines."""

import click


@click.command()
@click.pass_obj
def moon(source: str) -> None:
    """How the moon shines."""
    click.echo(f"brightly, says {source}")
'''
SQLITE, POSTGRES = "store/schema/sqlite.sql", "store/schema/postgres.sql"


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def forgotten(scratch: Scratch) -> object:
    return scratch.ran(FORGOTTEN)


def test_a_match_key_is_a_row_and_a_field(scratch: Scratch, tmp_path: Path) -> None:
    scratch.put(MATCH_KEY, before=LAST_KEY)
    assert forgotten(scratch) == ["meta/user_data.py: Fields has no shoe_size"]
    scratch.put("    shoe_size: Any\n", before="    whatsapp_business_account_id: str")
    shown = TRACKED + (
        "from capi_middleware.meta.match_keys import match_keys_of\n"
        "from tests.support.tallies import report_on, tally\n"
        "from capi_middleware.report.html import to_json\n"
        "made = report_on(tally('delivered', 'sent', 9, keys=('em', 'shoe_size')))\n"
        "keys = json.loads(to_json(made))['events'][0]['match_keys']\n"
        "print(json.dumps([list(TOLD[0]['user_data']), match_keys_of(REPORT.rows[0].match_keys),"
        " keys['shoe_size']]))"
    )
    told, kept, share = scratch.ran(
        shown, f"sqlite:///{tmp_path}/capi.db", '{"shoe_size": "Forty Two"}'
    )
    assert "shoe_size" in told
    assert "shoe_size" in kept
    assert share == 1.0
    assert forgotten(scratch) == []
    assert len(scratch.touched) <= 3, scratch.touched


def add_column(scratch: Scratch) -> None:
    """A column that is made with each event, kept with it and read with it."""
    kept = "CASE WHEN events.server IN ({browser_only}) THEN excluded.shade ELSE events.shade END"
    for path, old, new in (
        ("events.py", "\n\n\nclass Sighting", '\n    shade: str = ""'),
        ("request/issuing.py", ")\n                )  # fmt: skip\n        return rows",
         ", 'dark'"),
        ("store/records.py", "\n\n\n#: How many event_ids one call", '\n    shade: str = ""'),
        ("store/queries.sql", ", created_at, due_at)", ", shade"),
        ("store/queries.sql", ")\nSELECT event_id, event_name, pixel_id, event_time, server",
         ", shade text"),
        ("store/queries.sql", ", :now, :now\nFROM new WHERE true\nON CONFLICT", ", shade"),
        ("store/queries.sql", "    route = CASE WHEN events.server", f"    shade = {kept},\n"),
        (SQLITE, "    browser_digest TEXT", "    shade TEXT NOT NULL DEFAULT '',\n"),
        (POSTGRES, "    browser_digest text", "    shade text NOT NULL DEFAULT '',\n"),
        (SQLITE, "\nFROM events;", ", shade"),
        (POSTGRES, "\nFROM capi_events AS events;", ", shade"),
    ):  # fmt: skip
        scratch.write(f"capi_middleware/{path}", old, new)


def test_a_column_of_the_ledger_is_kept_and_read_in_six_files(
    scratch: Scratch, tmp_path: Path, postgres_url: str
) -> None:
    add_column(scratch)
    shown = TRACKED + "print(json.dumps([one.shade for one in KNOWN]))"
    assert scratch.ran(shown, f"sqlite:///{tmp_path}/capi.db", "{}") == ["dark"]
    assert scratch.ran(shown, postgres_url, "{}") == ["dark"]
    assert forgotten(scratch) == []
    assert len(scratch.touched) <= 6, scratch.touched


def test_each_place_that_a_column_is_missing_in_is_named(scratch: Scratch) -> None:
    scratch.write("capi_middleware/events.py", "\n\n\nclass Sighting", '\n    shade: str = ""')
    append = "store/queries.sql, append"
    assert forgotten(scratch) == [
        f"{append}, INSERT INTO: shade is not there",
        f"{append}, WITH new: shade is not there",
        f"{append}, SELECT: shade is not there",
        f"{append}, DO UPDATE: shade is not there",
        f"{SQLITE}, events: shade is not there",
        f"{POSTGRES}, events: shade is not there",
    ]


def test_a_consent_rule_is_one_row(scratch: Scratch) -> None:
    scratch.put(CONSENT_RULE, before='    "google": ReadyRule(')
    assert forgotten(scratch) == ["demo/README.md: the rule moon is not there"]
    row = '| `"moon"` | `moonCookie` | `ads:yes` |\n'
    scratch.write("demo/README.md", '| `"google"` |', row)
    shown = """
import json
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from capi_middleware import CAPIMiddleware, Config, Pixel
from capi_middleware.testing import capture
with capture() as captured:
    page = Route("/", lambda request: HTMLResponse("<!doctype html><html><head></head></html>"))
    pixels = [Pixel("123", access_token="t")]
    config = Config("a-key-of-32-letters-for-a-test-!", pixels, consent="moon")
    app = CAPIMiddleware(Starlette(routes=[page]), config)
    for answer in ("ads:yes", "ads:no"):
        headers = {"user-agent": "Mozilla/5.0", "cookie": f"moonCookie={answer}"}
        TestClient(app, headers=headers).get("/")
print(json.dumps([[one.event_name for one in captured.events], captured.suppressed]))
"""
    assert scratch.ran(shown) == [["PageView"], [["PageView", "consent"]]]
    assert forgotten(scratch) == []
    assert len(scratch.touched) <= 2, scratch.touched


def test_a_code_of_meta_is_one_row_that_everybody_reads(scratch: Scratch) -> None:
    scratch.put(CODE, before='[[meaning]]\ncodes = ["100"]', suffix=".toml")
    shown = """
import json
from capi_middleware.meta.codes import judge, meaning_of, read_error
from capi_middleware.testing.faults import graph_error
outcome = judge(400, read_error(graph_error("The moon", "4711")))
print(json.dumps([outcome.kind, *meaning_of(outcome.reason)]))
"""
    told = ["throttled", "the moon is full", "Wait for the new moon."]
    assert scratch.ran(shown) == told
    assert forgotten(scratch) == []
    assert len(scratch.touched) <= 2, scratch.touched


def test_a_code_that_is_named_without_a_meaning_is_told_of(scratch: Scratch) -> None:
    scratch.put('MOON = "4711"\n', before="TOKEN_REFUSED, WRONG_PROOF")
    assert forgotten(scratch) == ["meta/codes.py: MEANINGS has no MOON"]


def test_an_endpoint_is_one_row_and_its_function(scratch: Scratch) -> None:
    scratch.put(ENDPOINT, before='            "s.js": (')
    scratch.put(HANDLER, before="    async def _beacon(self")
    shown = """
import json
from starlette.testclient import TestClient
from capi_middleware import CAPI, CAPIMiddleware, Config, Pixel, wsgi
async def app(scope, receive, send): raise AssertionError
def application(environ, start_response): raise AssertionError
pixels = [Pixel("123", access_token="t")]
capi = CAPI(Config("a-key-of-32-letters-for-a-test-!", pixels, store="memory:", delivery=False))
started = []
environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/_capi/moon",
           "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
body = wsgi.CAPIMiddleware(application, capi)(environ, lambda *given: started.append(given))
print(json.dumps([TestClient(CAPIMiddleware(app, capi)).get("/_capi/moon").text,
                  b"".join(body).decode()]))
"""
    assert scratch.ran(shown) == ["it shines", "it shines"]
    assert forgotten(scratch) == []
    assert len(scratch.touched) <= 2, scratch.touched


def test_a_command_is_one_file_and_its_name_in_the_list(scratch: Scratch) -> None:
    scratch.write("capi_middleware/cli/moon.py", "", COMMAND)
    assert forgotten(scratch) == ["cli/__init__.py: main has no moon"]
    entry = "capi_middleware/cli/__init__.py"
    scratch.write(
        entry, "from capi_middleware.cli.reconcile", "from capi_middleware.cli.moon import moon\n"
    )
    scratch.write(entry, "init, check, report", "moon, ")
    shown = """
import json
from click.testing import CliRunner
from capi_middleware.cli import main
print(json.dumps(CliRunner().invoke(main, ["--config", "x.toml", "moon"]).output))
"""
    assert scratch.ran(shown) == "brightly, says x.toml\n"
    assert len(scratch.touched) <= 2, scratch.touched
    assert forgotten(scratch) == ["demo/README.md: the command moon is not there"]
