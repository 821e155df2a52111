"""Both doors, one table: the case file through raw ASGI and raw WSGI."""

import gzip
import zlib
from typing import Any

import pytest

from tests.support.exchanges import (
    TAG_START,
    Answer,
    chunks_of,
    environ_for,
    headers_of,
    make_capi,
    response_messages,
    scope_for,
    through_asgi,
    through_wsgi,
)
from tests.support.injection_cases import CASES

#: Options that some products have and this one does not: a page in an <iframe> is a page.
NOT_OURS = {"skip_iframes"}
BOTH = [
    case
    for case in CASES
    if case["executable"] and "response" in case and not NOT_OURS & set(case.get("config", ()))
]
DOORS = [
    pytest.param(case, door, id=f"{case['id']}-{door}")
    for case in BOTH
    for door in ("asgi", "wsgi")
    if case["interface"] in ("both", door)
]


def ask(case: dict[str, Any], door: str, chunks: list[bytes]) -> Answer:
    """Send the case's response, cut into `chunks`, through a door."""
    response = case["response"]
    capi = make_capi(case)
    try:
        if door == "asgi":
            return through_asgi(
                capi,
                scope_for(case["request"]),
                response_messages(response["status"], headers_of(response["headers"]), chunks),
            )

        def app(environ: Any, start_response: Any) -> list[bytes]:
            start_response(f"{response['status']} X", [tuple(one) for one in response["headers"]])
            return chunks

        return through_wsgi(capi, environ_for(case["request"]), app)
    finally:
        capi.close()


def decoded(body: bytes) -> bytes:
    text = b""
    while body:
        decoder = zlib.decompressobj(31)
        text += decoder.decompress(body)
        body = decoder.unused_data
    return text


def check_body(case: dict[str, Any], answer: Answer, body: bytes) -> None:
    expect = case["expect"]
    output = answer.body
    place = expect.get("insert_at")
    if expect.get("decoded_injected"):
        body, output, place = decoded(body), decoded(output), expect["decoded_insert_at"]
    if expect.get("injected") or expect.get("decoded_injected"):
        length = len(output) - len(body)
        tag = output[place : place + length]
        assert output == body[:place] + tag + body[place:]
        assert tag.startswith(TAG_START)
        assert tag.endswith(b"</script>")
        assert tag.isascii()
        nonce = expect.get("snippet", {}).get("nonce")
        assert (f' nonce="{nonce}"'.encode() in tag) if nonce else b"nonce" not in tag
    elif expect.get("injected") is False:
        assert output == body


def check_headers(case: dict[str, Any], answer: Answer) -> None:
    given = [(name.lower(), value) for name, value in case["response"]["headers"]]
    rules = dict(case["expect"].get("headers", {}))
    found = [(name.lower(), value) for name, value in answer.headers]
    if rules.pop("*", None):
        assert found == given
    lengths = [value for name, value in found if name == "content-length"]
    if case["expect"].get("injected"):
        assert lengths in ([], [str(len(answer.body))])
    for name, rule in rules.items():
        before = [value for key, value in given if key == name]
        after = [value for key, value in found if key == name]
        if rule == "same":
            assert after == before, name
        elif rule == "absent":
            assert after == [], name
        elif rule == "app_values_first_in_order":
            assert after[: len(before)] == before
        elif rule == "len":
            assert after == [str(len(answer.body))]
        elif rule in ("len_or_absent", "absent_or_len"):
            assert after in ([], [str(len(answer.body))])
        elif rule == "weak_or_same":
            assert after in (before, [f"W/{value}" for value in before])
        elif rule == "weak_or_changed_or_absent":
            assert after != before or after == []
        else:
            pytest.fail(f"a rule this test does not know: {rule!r}")


def check_cookies(case: dict[str, Any], answer: Answer) -> None:
    cookies = [value for name, value in answer.headers if name.lower() == "set-cookie"]
    for name, rule in case["expect"].get("set_cookie", {}).items():
        values = [value for value in cookies if value.startswith(f"{name}=")]
        wanted = rule
        if wanted == "absent":
            assert values == []
        elif wanted in ("set", "set_new_valid"):
            assert len(values) == 1
            assert values[0].startswith(f"{name}=fb.")
        elif wanted == "app_value_only":
            assert values == [f"{name}=fb.1.1.2; Path=/"]
        elif name == "attrs_absent":
            assert not any(attribute in value for value in cookies for attribute in wanted)
        else:
            assert wanted == "absent_or_set"


@pytest.mark.parametrize(("case", "door"), DOORS)
def test_a_response_comes_out_as_the_table_says(case: dict[str, Any], door: str) -> None:
    chunks = chunks_of(case["response"])
    answer = ask(case, door, chunks)
    check_body(case, answer, b"".join(chunks))
    check_headers(case, answer)
    check_cookies(case, answer)


SPLIT = [
    param
    for param in DOORS
    if param.values[0]["group"] in ("tokenizer", "chunking", "charset")  # type: ignore[index]
]


@pytest.mark.parametrize(("case", "door"), SPLIT)
def test_every_split_of_a_body_gives_the_same_bytes(case: dict[str, Any], door: str) -> None:
    body = b"".join(chunks_of(case["response"]))
    if len(body) > 4000:
        cuts = [1, 40, len(body) // 2, len(body) - 40]
    else:
        cuts = list(range(1, len(body)))
    if len(cuts) > 60:
        cuts = cuts[:: len(cuts) // 60 + 1]
    for cut in cuts:
        check_body(case, ask(case, door, [body[:cut], body[cut:]]), body)
    if len(body) <= 4000:
        check_body(case, ask(case, door, [bytes([byte]) for byte in body]), body)


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_a_gzip_body_in_pieces_is_injected_and_stays_gzip(door: str) -> None:
    page = b"<!doctype html><html><head><title>x</title></head><body>" + b"<p>row</p>" * 9000
    packed = gzip.compress(page)
    case: dict[str, Any] = {
        "request": CASES[0]["request"],
        "response": {
            "status": 200,
            "headers": [["content-type", "text/html"], ["content-encoding", "gzip"]],
        },
        "expect": {"decoded_injected": True, "decoded_insert_at": 43},
    }
    pieces = [packed[place : place + 100] for place in range(0, len(packed), 100)]
    check_body(case, ask(case, door, pieces), packed)
