"""mcp: what an assistant reads, through the SDK's own client."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from capi_middleware import CAPI, UserData
from capi_middleware.cli.mcp import server_of
from capi_middleware.events import SENT, Row
from tests.support.configs import PIXEL_ID, SECRET, make_config
from tests.support.stores import store_rows

TOOLS = {"report", "causes", "events", "metas_view"}


@pytest.fixture
def capi() -> Iterator[CAPI]:
    capi = CAPI(make_config(store="memory:", delivery=False))
    store_rows(capi.store, *(
        Row(event_id=f"e{n}", event_name="Purchase", pixel_id=PIXEL_ID, payload=None,
            event_time=time.time() - 60, browser=SENT if n else "csp",
            server="unmapped" if n % 2 else "delivered")
        for n in range(10)
    ))  # fmt: skip
    yield capi
    capi.close()


def ask(capi: CAPI, tool: str, **arguments: str) -> Any:
    """What a tool answers; its words where it refuses."""

    async def asked() -> Any:
        async with Client(server_of(capi)) as client:
            answer = await client.call_tool(tool, arguments)
            if answer.is_error:
                return str(answer.content)
            return answer.structured_content

    return asyncio.run(asked())


def test_each_tool_only_reads_and_says_what_for(capi: CAPI) -> None:
    async def listed() -> Any:
        async with Client(server_of(capi)) as client:
            return (await client.list_tools()).tools

    tools = asyncio.run(listed())
    assert {one.name for one in tools} == TOOLS
    assert all(one.description and one.annotations.read_only_hint for one in tools)


def test_the_report_has_the_numbers_of_the_page(capi: CAPI) -> None:
    found = ask(capi, "report")
    [purchase] = found["events"]
    assert (purchase["event_name"], purchase["browser"], purchase["matched"]) == ("Purchase", 9, 4)
    assert found["verdict"]["word"] == "look"
    assert ask(capi, "report", event="Lead")["events"] == []


def test_causes_say_how_many_why_and_what_to_do(capi: CAPI) -> None:
    found = {(one["missing_copy"], one["cause"]): one for one in ask(capi, "causes")["causes"]}
    assert found["server", "unmapped"]["events"] == 5
    assert "Content-Security-Policy" in found["browser", "csp"]["fix"]
    assert all(one["because"] for one in found.values())


def test_an_order_is_found_by_its_number(capi: CAPI) -> None:
    event_id = capi.track("Lead", dedupe_key="17", user_data=UserData(em="jane@example.com"),
                          action_source="system_generated").event_id  # fmt: skip
    [found] = ask(capi, "events", id="17")["events"]
    assert (found["event_id"], found["match_keys"]) == (event_id, ["em"])
    assert "jane" not in json.dumps(ask(capi, "events"))


def test_metas_view_is_empty_before_meta_was_asked(capi: CAPI) -> None:
    assert ask(capi, "metas_view") == {"insights": None, "comparisons": []}


def test_a_question_that_cannot_be_answered_says_what_was_expected(capi: CAPI) -> None:
    assert "expected an ISO 8601 date" in ask(capi, "report", start="soon")


def test_the_command_speaks_on_standard_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "capi.toml").write_text(
        f'secret_key = "{SECRET}"\nstore = "memory:"\ndelivery = false\n'
        f'[[pixels]]\nid = "{PIXEL_ID}"\naccess_token = "token"\n'
    )
    command = ["-m", "capi_middleware.cli", "--config", str(tmp_path / "capi.toml"), "mcp"]

    async def listed() -> set[str]:
        server = StdioServerParameters(
            command=sys.executable, args=command, cwd=Path(__file__).parents[2]
        )
        async with Client(server) as client:
            return {one.name for one in (await client.list_tools()).tools}

    assert asyncio.run(asyncio.wait_for(listed(), 60)) == TOOLS


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "capi.toml").write_text(
        f'secret_key = "{SECRET}"\nstore = "memory:"\n'
        f'[[pixels]]\nid = "{PIXEL_ID}"\naccess_token = "token"\n'
    )
    code = (
        "import sys; sys.modules['mcp'] = None\n"
        "from capi_middleware.cli import main\n"
        f"main(['--config', {str(tmp_path / 'capi.toml')!r}, 'mcp'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=False, timeout=60,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'capi-middleware[mcp]'" in done.stderr
