"""The fake Meta refuses what the Graph API refuses, and keeps what it accepts."""

import hashlib
import hmac
import json
from typing import Any

import anyio
import httpx
import pytest

from capi_middleware.testing import FakeMeta, create_app

NOW = 1_800_000_000
HASH = hashlib.sha256(b"jane@example.com").hexdigest()
PIXEL = "1234567890"


def event(**changes: Any) -> dict[str, Any]:
    """A Purchase that Meta accepts, with changes; a None removes the field."""
    given = {
        "event_name": "Purchase",
        "event_id": "e1",
        "event_time": NOW,
        "action_source": "website",
        "event_source_url": "https://shop.example/thanks",
        "user_data": {"em": [HASH], "client_user_agent": "Mozilla/5.0"},
        "custom_data": {"value": 9.5, "currency": "EUR"},
        **changes,
    }
    return {key: value for key, value in given.items() if value is not None}


def fake_meta(**settings: Any) -> FakeMeta:
    return FakeMeta(clock=lambda: NOW, **settings)


def call(fake: FakeMeta, method: str, path: str, **request: Any) -> httpx.Response:
    """One request to a fake in this process."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=fake.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://meta") as client:
            return await client.request(method, path, **request)

    return anyio.run(send)


def post(fake: FakeMeta, *events: Any, pixel: str = PIXEL, token: str = "t") -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return call(fake, "POST", f"/v26.0/{pixel}/events", json={"data": events}, headers=headers)


def codes(response: httpx.Response) -> tuple[int, int, int | None]:
    """HTTP status, error code, error subcode."""
    error = response.json()["error"]
    return response.status_code, error["code"], error.get("error_subcode")


def test_a_good_event_is_received() -> None:
    fake = fake_meta()
    answer = post(fake, event(), event(event_id="e2"))
    assert answer.json() | {"fbtrace_id": ""} == {
        "events_received": 2,
        "messages": [],
        "fbtrace_id": "",
    }
    assert [each.key for each in fake.received.server] == [
        (PIXEL, "Purchase", "e1"),
        (PIXEL, "Purchase", "e2"),
    ]


@pytest.mark.parametrize(
    ("changes", "subcode"),
    [
        ({"event_time": NOW - 7 * 86_400 - 1}, 2804003),
        ({"event_time": NOW + 61}, 2804004),
        ({"custom_data": {"value": 1, "currency": "EUR", "contents": [{"q": 1}]}}, 2804008),
        ({"custom_data": {"currency": "EUR"}}, 2804009),
        ({"custom_data": {"value": 1}}, 2804010),
        ({"user_data": {"em": "jane@example.com", "client_user_agent": "x"}}, 2804016),
        ({"user_data": {"em": [HASH.upper()], "client_user_agent": "x"}}, 2804016),
        ({"user_data": {"em": [f"{HASH}.AQQ"], "client_user_agent": "x"}}, 2804016),
        ({"user_data": {"ph": [HASH, None], "client_user_agent": "x"}}, 2804016),
        ({"event_name": "Lead", "custom_data": {"value": 1}}, 2804023),
        ({"user_data": {}}, 2804050),
        ({"user_data": {"client_user_agent": "x"}}, 2804050),
        ({"user_data": {"country": HASH, "client_user_agent": "x"}}, 2804050),
        ({"user_data": {"db": HASH, "client_user_agent": "x"}}, 2804050),
        ({"user_data": {"fn": HASH, "ge": HASH}}, 2804050),
        ({"event_name": None}, None),
        ({"event_name": ""}, None),
        ({"event_time": None}, None),
        ({"event_time": 1.5}, None),
        ({"event_time": str(NOW)}, None),
        ({"event_time": True}, None),
        ({"action_source": None}, None),
        ({"action_source": "web"}, None),
        ({"event_source_url": None}, None),
        ({"event_source_url": "/thanks"}, None),
        ({"user_data": {"em": HASH}}, None),
        ({"user_data": None}, None),
        ({"event_id": 7}, None),
        ({"custom_data": []}, None),
        ({"custom_data": {"value": "much", "currency": "EUR"}}, None),
        ({"custom_data": {"value": 1, "currency": "EURO"}}, None),
        ({"data_processing_options": ["X"]}, None),
        ({"opt_out": "yes"}, None),
        ({"action_source": "business_messaging"}, None),
        ({"messaging_channel": "whatsapp"}, None),
        ({"action_source": "business_messaging", "messaging_channel": "sms"}, None),
        ({"customer_segmentation": "new"}, None),
        ({"original_event_data": {"event_time": "1"}}, None),
        ({"original_event_data": {"when": 1}}, None),
        ({"attribution_data": {"attribution_model": "mine"}}, None),
        ({"app_data": {}}, None),
        ({"user_data": {"ctwa_clid": "c", "client_user_agent": "x"}}, None),
        ({"custom_data": {"value": 1, "currency": "EUR", "event_source": "crm"}}, None),
        ({"event_time": NOW - 63 * 86_400, "action_source": "physical_store"}, 2804003),
    ],
)
def test_a_bad_event_is_refused_with_its_code(changes: dict[str, Any], subcode: int | None) -> None:
    fake = fake_meta()
    assert codes(post(fake, event(**changes))) == (400, 100, subcode)


@pytest.mark.parametrize(
    "changes",
    [
        {"event_time": NOW - 7 * 86_400},
        {"event_time": NOW + 60},
        {"event_time": NOW - 60 * 86_400, "action_source": "physical_store"},
        {"user_data": {"client_ip_address": "203.0.113.7", "client_user_agent": "x"}},
        {"custom_data": {"value": "9.50", "currency": "eur", "order_id": "7"}},
        {"user_data": {"em": [f"{HASH}.AQQCAQMC"], "client_user_agent": "x"}},
        {"event_name": "Größe gewählt", "custom_data": None},
        {"data_processing_options": []},
        {"action_source": "business_messaging", "messaging_channel": "instagram"},
        {"customer_segmentation": "existing_customer_to_product_area", "opt_out": True},
        {"original_event_data": {"event_name": "Purchase", "event_time": NOW}},
        {"attribution_data": {"ad_id": "1", "attribution_method": "mir"}},
        {
            "user_data": {
                "ctwa_clid": "c",
                "whatsapp_business_account_id": "1",
                "client_user_agent": "x",
            }
        },
        {
            "event_name": "QualifiedLead",
            "action_source": "system_generated",
            "user_data": {"lead_id": 525645896321548},
            "custom_data": {"event_source": "crm", "lead_event_source": "Our CRM"},
        },
    ],
)
def test_what_meta_accepts_is_accepted(changes: dict[str, Any]) -> None:
    assert post(fake_meta(), event(**changes)).status_code == 200


def test_one_bad_event_refuses_the_whole_request() -> None:
    fake = fake_meta()
    assert codes(post(fake, event(), event(event_time=1), event())) == (400, 100, 2804003)
    assert fake.received.server == []


def test_an_error_has_the_shape_of_meta_s() -> None:
    error = post(fake_meta(), event(event_time=1)).json()["error"]
    assert error.keys() == {
        "message", "type", "code", "error_subcode", "is_transient", "error_user_title",
        "error_user_msg", "error_data", "fbtrace_id",
    }  # fmt: skip
    assert error["is_transient"] is False
    assert error["error_data"] == {"blame_field_specs": [["event_time"]]}


@pytest.mark.parametrize(("events", "status"), [(0, 400), (1, 200), (1000, 200), (1001, 400)])
def test_a_request_carries_1_to_1000_events(events: int, status: int) -> None:
    assert post(fake_meta(), *[event()] * events).status_code == status


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"data": [event()], "access_token": "t"}},
        {"json": {"data": [event()]}, "params": {"access_token": "t"}},
        {"json": {"data": [event()]}, "headers": {"authorization": "Bearer t"}},
        {"data": {"data": json.dumps([event()]), "access_token": "t"}},
        {"data": {"data": json.dumps([json.dumps(event())]), "access_token": "t"}},
        {"files": {"data": (None, json.dumps([event()])), "access_token": (None, "t")}},
    ],
    ids=["json", "query", "bearer", "form", "form of texts", "multipart"],
)
def test_every_form_of_request_is_understood(request_: dict[str, Any]) -> None:
    fake = fake_meta(tokens={PIXEL: "t"})
    assert call(fake, "POST", f"/v26.0/{PIXEL}/events", **request_).status_code == 200
    assert fake.received.server[0].event == event()


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b'{"data":{}}', b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    headers = {"authorization": "Bearer t", "content-type": "application/json"}
    answer = call(fake_meta(), "POST", f"/v26.0/{PIXEL}/events", content=body, headers=headers)
    assert codes(answer) == (400, 100, None)


@pytest.mark.parametrize(
    ("pixel", "token", "expected"),
    [
        (PIXEL, "wrong", (401, 190, None)),
        (PIXEL, "", (401, 190, None)),
        (PIXEL, "of another", (400, 100, 33)),
        ("404", "mine", (400, 100, 33)),
    ],
)
def test_a_token_opens_its_own_pixel_only(
    pixel: str, token: str, expected: tuple[int, int, int | None]
) -> None:
    fake = fake_meta(tokens={PIXEL: "mine", "222": "of another"})
    assert codes(post(fake, event(), pixel=pixel, token=token)) == expected


def test_the_proof_of_the_app_secret_is_checked() -> None:
    fake = fake_meta(app_secret="secret")
    assert codes(post(fake, event())) == (400, 104, None)
    proof = hmac.new(b"secret", b"t", hashlib.sha256).hexdigest()
    body = {"data": [event()], "access_token": "t", "appsecret_proof": proof}
    assert call(fake, "POST", f"/v26.0/{PIXEL}/events", json=body).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_the_edge_only_takes_posts(method: str) -> None:
    assert codes(call(fake_meta(), method, f"/v26.0/{PIXEL}/events")) == (400, 100, 33)


def test_an_unknown_version_is_an_unknown_path() -> None:
    assert codes(call(fake_meta(), "POST", f"/latest/{PIXEL}/events")) == (400, 2500, None)


def test_a_version_that_meta_ended_is_refused_as_deprecated() -> None:
    assert codes(call(fake_meta(), "POST", f"/v3.1/{PIXEL}/events")) == (400, 2635, None)


def test_scripted_answers_come_first_and_then_the_truth() -> None:
    fake = fake_meta()
    fake.fail_next(503)
    fake.fail_next(429, headers={"retry-after": "7"}, times=2)
    answers = [post(fake, event()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 429, 429, 200]
    assert answers[0].json()["error"]["is_transient"] is True
    assert answers[1].headers["retry-after"] == "7"
    assert len(fake.received.server) == 1


def test_a_scripted_answer_may_be_for_one_pixel() -> None:
    fake = fake_meta()
    fake.fail_next(500, "<html>", pixel_id="222", times=None)
    assert [post(fake, event(), pixel=pixel).status_code for pixel in ("222", PIXEL, "222")] == [
        500, 200, 500,
    ]  # fmt: skip


@pytest.mark.parametrize(("drop", "received"), [("before", 0), ("after", 1)])
def test_a_cut_connection_loses_the_request_or_only_the_answer(drop: Any, received: int) -> None:
    fake = fake_meta()
    fake.fail_next(drop=drop)
    with pytest.raises(httpx.ReadError):
        post(fake, event())
    assert len(fake.received.server) == received


def test_another_process_can_script_answers() -> None:
    fake = fake_meta()
    assert call(fake, "POST", "/faults", json={"status": 503, "times": 9}).status_code == 204
    assert post(fake, event()).status_code == 503
    assert call(fake, "DELETE", "/faults").status_code == 204
    assert post(fake, event()).status_code == 200


@pytest.mark.parametrize("fault", [{"stat": 5}, {"endpoint": "x"}, {"drop": "x"}, [1]])
def test_a_fault_that_makes_no_sense_is_refused(fault: Any) -> None:
    assert call(fake_meta(), "POST", "/faults", json=fault).status_code == 400


def test_both_copies_of_an_event_are_a_pair() -> None:
    fake = fake_meta()
    post(fake, event(), event())
    call(fake, "GET", f"/tr/?id={PIXEL}&ev=Purchase&eid=e1&cd%5Bvalue%5D=9.5")
    call(fake, "POST", "/tr/", data={"id": PIXEL, "ev": "PageView"})
    received = call(fake, "GET", "/received").json()
    assert received["pairs"] == [
        {"pixel_id": PIXEL, "event_name": "Purchase", "event_id": "e1", "server": 2, "browser": 1},
        {"pixel_id": PIXEL, "event_name": "PageView", "event_id": "", "server": 0, "browser": 1},
    ]
    assert [(hit["method"], hit["cd"]) for hit in received["browser"]] == [
        ("GET", {"value": "9.5"}),
        ("POST", {}),
    ]


def test_no_access_token_is_ever_shown() -> None:
    fake = fake_meta()
    body = {"data": [event()], "access_token": "EAAsecret"}
    call(fake, "POST", f"/v26.0/{PIXEL}/events", json=body, params={"access_token": "EAAsecret"})
    answer = call(fake, "GET", "/received")
    assert len(answer.json()["server"]) == 1
    assert "EAAsecret" not in answer.text


def test_what_was_received_can_be_forgotten() -> None:
    fake = fake_meta()
    post(fake, event())
    call(fake, "DELETE", "/received")
    assert call(fake, "GET", "/received").json() == {"server": [], "browser": [], "pairs": []}


@pytest.mark.parametrize(("answer", "kind"), [("empty", "text/plain"), ("gif", "image/gif")])
def test_tr_answers_as_it_is_told(answer: Any, kind: str) -> None:
    fake = fake_meta()
    fake.tr_answer = answer
    response = call(fake, "GET", "/tr/?id=1&ev=PageView")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    assert (response.content == b"") == (answer == "empty")


def test_a_request_without_an_event_is_a_probe() -> None:
    fake = fake_meta()
    call(fake, "GET", "/tr/?id=1")
    assert (fake.received.probes, fake.received.browser) == (1, [])


def test_a_hit_keeps_what_a_browser_says_about_itself() -> None:
    fake = fake_meta()
    headers = {"cookie": "_fbp=fb.1.2.3", "user-agent": "UA", "sec-purpose": "prefetch;prerender"}
    call(fake, "GET", "/tr/?id=1&ev=X&dl=https%3A%2F%2Fa%2F", headers=headers)
    hit = fake.received.browser[0]
    assert (hit.cookies, hit.user_agent, hit.sec_purpose, hit.dl, hit.eid) == (
        {"_fbp": "fb.1.2.3"}, "UA", "prefetch;prerender", "https://a/", None,
    )  # fmt: skip


def test_the_factory_makes_a_fake_of_its_own() -> None:
    assert create_app().state.fake is not create_app().state.fake
