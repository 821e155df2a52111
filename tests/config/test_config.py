"""Config: every configuration that cannot work gives one clear error at start-up."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from capi_middleware import Config, ConfigError, EventRoute, Pixel
from tests.support.configs import SECRET, TOKEN, make_config


class Later:
    async def __call__(self, event: Any) -> Any:
        return event


BAD: list[tuple[dict[str, Any], str]] = [
    ({"secret_key": "short"}, "secret_key: found 5 characters, expected a secret of at least 32"),
    ({"secret_key": ""}, "secret_key: found nothing"),
    ({"secret_key": []}, "secret_key: found nothing"),
    ({"secret_key": [SECRET, "old"]}, "secret_key: found 3 characters"),
    ({"pixels": []}, "pixels: found an empty list"),
    ({"pixels": [Pixel("1", TOKEN), Pixel("1", TOKEN)]}, "expected each pixel once"),
    ({"prefix": "capi"}, "prefix: found 'capi'"),
    ({"prefix": "/capi/"}, "prefix: found '/capi/'"),
    ({"store": "mysql://host/db"}, "store: found 'mysql'"),
    ({"store": "sqlite:///"}, "store: found 'sqlite'"),
    ({"durability": "some"}, "durability: found 'some'"),
    ({"privacy": "none"}, "privacy: found 'none'"),
    ({"page_view": "yes"}, "page_view: found a str, expected true or false"),
    ({"delivery": "later"}, "delivery: found 'later', expected true, false or 'before_answer'"),
    ({"delivery": 1}, "delivery: found 1"),
    ({"queue_limit": 0}, "queue_limit: found 0"),
    ({"default_region": "usa"}, "default_region: found 'usa'"),
    ({"trusted_proxies": ["10.0.0.0/99"]}, "trusted_proxies: found '10.0.0.0/99'"),
    ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies: found '10.0.0.0/8', expected a list"),
    ({"graph_url": "http://graph.example"}, "graph_url: found 'http://graph.example'"),
    ({"graph_version": "26"}, "graph_version: found '26'"),
    ({"ad_account": "act_x"}, "ad_account: found 'act_x', expected its number"),
    ({"ad_account": ""}, "ad_account: found ''"),
    ({"insights_hours": -1}, "insights_hours: found -1, expected a whole number of at least 0"),
    ({"insights_hours": True}, "insights_hours: found True"),
    ({"hosts": ["https://shop.example"]}, "hosts: found 'https://shop.example', expected names"),
    ({"hosts": ["*.shop.example"]}, "hosts: found '*.shop.example', expected names"),
    ({"hosts": ["shop.example:443"]}, "hosts: found 'shop.example:443'"),
    ({"hosts": "shop.example"}, "hosts: found 'shop.example', expected a list"),
    ({"exclude": ["admin"]}, "exclude: found 'admin'"),
    ({"internal": "staff"}, "internal: found a str, expected a callable"),
    ({"internal": {"is": ["x"]}}, "internal: found ['is'], expected networks, or a value"),
    ({"internal": {"cookie": "x"}}, "internal: found the unknown ['cookie']"),
    ({"internal": {"networks": "10.0.0.0/8"}}, "internal.networks: found '10.0.0.0/8', expected a"),
    ({"internal": {"networks": ["office"]}}, "internal.networks: found 'office', expected net"),
    ({"internal": {"value": "{cookie.}"}}, "internal: bad expression '{cookie.}'"),
    ({"consent": "yes"}, "consent: found 'yes', expected one of"),
    ({"consent": {"granted": ["yes"]}}, "consent: found ['granted']"),
    ({"user_data": {"em": "{cookie.}"}}, "user_data: bad expression '{cookie.}'"),
    ({"alert_webhook": "http://hooks.example/x"}, "alert_webhook: found the scheme 'http' and a"),
    ({"alert_webhook": "ftp://localhost/x"}, "alert_webhook: found the scheme 'ftp' and a host"),
    ({"alert_webhook": "https:///x"}, "alert_webhook: found the scheme 'https' and no host"),
    ({"alert_webhook": ""}, "alert_webhook: found the scheme '' and no host"),
    ({"alert_webhook": "https://[x"}, "alert_webhook: found a str, expected an https://"),
    ({"alert_webhook": 7}, "alert_webhook: found a int, expected an https://"),
    ({"on_alert": "print"}, "on_alert: found a str, expected a function that takes an Alert"),
    ({"on_alert": asyncio.sleep}, "on_alert: found an async function"),
    ({"before_send": partial(asyncio.sleep, 1)}, "before_send: found an async function"),
    ({"before_send": Later()}, "before_send: found an async function"),
    ({"report_token": " "}, "report_token: found 1 characters, expected at least 16"),
    ({"report_token": "fifteen letters"}, "report_token: found 15 characters, expected at least"),
    ({"report_token": 1234567890123456}, "report_token: found a int, expected at least 16"),
    ({"secret_key": "x" * 40}, "secret_key: found a text that can be guessed, expected one drawn"),
    ({"secret_key": [SECRET, "0123456789" * 4]}, "secret_key: found a text that can be guessed"),
    ({"secret_key": "abcdefghijklmnopqrstuvwxyz0123456789"}, "found a text that can be guessed"),
    ({"secret_key": "password123" * 4}, "secret_key: found a text that can be guessed"),
    ({"secret_key": "change-me-to-a-long-random-value-please"}, "found a text that can be guessed"),
    ({"report_token": "env:TOKEN"}, "report_token: found the text 'env:TOKEN', expected os.env"),
    ({"secret_key": "env:" + "A" * 40}, "expected os.environ["),
    ({"secret_key": [SECRET, "env:" + "B" * 40]}, "secret_key: found the text 'env:BBB"),
    ({"store": "env:DATABASE_URL"}, "store: found the text 'env:DATABASE_URL'"),
    ({"alert_webhook": "env:HOOK"}, "alert_webhook: found the text 'env:HOOK'"),
    ({"trusted_proxies": ["0.0.0.0/0"]}, "found '0.0.0.0/0', which is everybody, expected"),
    ({"trusted_proxies": ["10.0.0.0/8", "::/0"]}, "found '::/0', which is everybody, expected"),
    (
        {"routes": [EventRoute("GET /_capi/x", "Lead")]},
        "found a path under our own prefix '/_capi'",
    ),
    (
        {"routes": [EventRoute("GET /x/{a}", "Lead"), EventRoute("GET /x/{b}", "Lead")]},
        "route 'GET /x/{b}': found that the earlier 'GET /x/{a}' takes all its requests",
    ),
    (
        {"routes": [EventRoute("* /{rest:path}", "Lead"), EventRoute("POST /x", "Lead")]},
        "expected the special route before the general one",
    ),
    (
        {"routes": [EventRoute("GET /x", "Lead", pixels=["99"])]},
        "route 'GET /x': pixels: found ['99']",
    ),
    (
        {
            "pixels": [Pixel("1", TOKEN, events=["Purchase"])],
            "routes": [EventRoute("GET /x", "Lead")],
        },
        "found no pixel that takes 'Lead'",
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=range(len(BAD)))
def test_a_setting_that_cannot_work_is_named_with_found_and_expected(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**settings)
    assert message in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_later_route_for_another_status_is_not_taken_for_dead() -> None:
    routes = [
        EventRoute("GET /x", "Lead", status="2xx"),
        EventRoute("GET /x", "Lead", status="302"),
    ]
    assert len(make_config(routes=routes).routes) == 2


def test_repr_and_errors_show_no_secret() -> None:
    pixel = Pixel("1", access_token="EAAB-token", app_secret="app-secret")
    hook = "https://hooks.example/T123"
    config = make_config(pixels=[pixel], report_token="let-me-in-please", alert_webhook=hook)
    shown = repr(pixel) + repr(config)
    with pytest.raises(ConfigError) as caught:
        make_config(alert_webhook="http://hooks.example/T123")
    shown += str(caught.value)
    for secret in ("EAAB-token", "app-secret", "let-me-in-please", "T123", SECRET):
        assert secret not in shown


TOML = """
secret_key = "env:CAPI_TEST_SECRET"
report_token = "env:CAPI_TEST_REPORT"
store = "memory:"
alert_webhook = "https://hooks.example/T123"

[[pixels]]
id = "1234567890"
access_token = "env:CAPI_TEST_TOKEN"

[[routes]]
match = "GET /products/{sku}"
event_name = "ViewContent"
custom_data = { content_ids = ["{path.sku}"], content_type = "product" }

[[routes]]
match = "GET /orders/{order_id}/thanks"
event_name = "Purchase"
dedupe_key = "{path.order_id}"
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPI_TEST_SECRET", SECRET)
    monkeypatch.setenv("CAPI_TEST_REPORT", "the-report-token")
    monkeypatch.setenv("CAPI_TEST_TOKEN", TOKEN)


@pytest.mark.usefixtures("environment")
def test_a_file_says_the_same_as_python(tmp_path: Path) -> None:
    file = tmp_path / "capi.toml"
    file.write_text(TOML)
    config = Config.load(file)
    assert config.secret_key == SECRET
    assert config.fixed_pixels[0].access_token == TOKEN
    assert config.alert_webhook == "https://hooks.example/T123"
    assert [route.match for route in config.routes] == [
        "GET /products/{sku}",
        "GET /orders/{order_id}/thanks",
    ]
    assert config.routes[1].dedupe_key == "{path.order_id}"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('store = "memory:"', 'stroe = "memory:"'), "stroe: found an unknown key, expected one"),
        (("dedupe_key =", "dedupe ="), "routes[1].dedupe: found an unknown key"),
        (('store = "memory:"', 'stroe = "memory:"'), "; did you mean 'store'?"),
        (('event_name = "Purchase"', 'event_nam = "x"'), "; did you mean 'event_name'?"),
        (('store = "memory:"', "trusted_proxies = 5"), "the file: found a value of a wrong type"),
        (("GET /products/{sku}", "GET products"), "routes[0]: route 'GET products'"),
        (("GET /products/{sku}", "FETCH /x"), "found method 'FETCH'"),
        (("{path.sku}", "{path.name}"), "found {path.name}, expected one of its parameters: sku"),
        (('event_name = "Purchase"', ""), "routes[1]: found no event_name, expected it"),
        (("env:CAPI_TEST_TOKEN", "env:NOT_SET"), "pixels[0].access_token: found 'env:NOT_SET'"),
        (("[[pixels]]", "[pixels]"), "pixels: found a dict, expected [[pixels]] tables"),
        (("secret_key =", "secret_key"), "found no valid TOML"),
        (('secret_key = "env:CAPI_TEST_SECRET"', ""), "the file: found no secret_key"),
    ],
)
def test_an_error_in_a_file_names_the_file_and_the_key(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    file = tmp_path / "capi.toml"
    file.write_text(TOML.replace(*change))
    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no readable file"):
        Config.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("GET", "Lead"), "bad path"),
        (("GET /a/{b", "Lead"), "found a brace that is no parameter"),
        (("GET /a/{b:date}", "Lead"), "found converter 'date'"),
        (("GET /a/{b}/{b}", "Lead"), "found {b} twice"),
        (("GET /a?b=1", "Lead"), "expected a path without '?'"),
        (("GET /a", ""), "found event_name ''"),
        (("GET /a", "x" * 51), "expected 1 to 50 printable characters"),
    ],
)
def test_a_route_that_cannot_be_read_is_refused(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EventRoute(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("status", ["6xx", "2xx,abc", "", "20"])
def test_a_status_that_is_none_is_refused(status: str) -> None:
    with pytest.raises(ConfigError, match="found status"):
        EventRoute("GET /a", "Lead", status=status)


@pytest.mark.parametrize("text", ["{path}", "{body.x}", "{form.x", "a}b", "{}", "{form..x}"])
def test_an_expression_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bad expression"):
        EventRoute("GET /a", "Lead", custom_data={"value": text})
