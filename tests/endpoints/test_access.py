"""Who may read the report."""

import pytest
from starlette.responses import Response

from capi_middleware.endpoints.access import COOKIE, LOGIN_SECONDS, Access
from tests.support.configs import make_config

TOKEN = "a report token of tests"
VISITOR = "8.8.8.8"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def access(clock: Clock | None = None, **settings: object) -> Access:
    return Access(make_config(**{"report_token": TOKEN, **settings}), clock or Clock())


def test_the_token_opens_and_anything_else_does_not() -> None:
    door = access()
    assert door.refusal(bearer(TOKEN), VISITOR) is None
    assert door.refusal(bearer("a report token of test"), VISITOR) == 401
    assert door.refusal({}, VISITOR) == 401
    assert door.refusal({"authorization": f"Basic {TOKEN}"}, VISITOR) == 401


def test_without_a_token_there_is_nothing_but_in_debug() -> None:
    assert access(report_token=None).refusal(bearer(""), VISITOR) == 404
    assert access(report_token=None, debug=True).refusal({}, VISITOR) is None


def test_wrong_tokens_of_one_address_are_limited_until_it_waits() -> None:
    clock = Clock()
    door = access(clock)
    answers = [door.refusal(bearer("wrong"), VISITOR) for _ in range(30)]
    assert answers[0] == 401
    assert answers[-1] == 429
    assert door.refusal(bearer(TOKEN), VISITOR) == 429  # a guess that is right tells nothing
    assert door.refusal(bearer(TOKEN), "9.9.9.9") is None
    clock.now += 60
    assert door.refusal(bearer(TOKEN), VISITOR) is None


@pytest.mark.parametrize("address", [None, "10.0.0.1", "127.0.0.1", "not an address"])
def test_a_wall_of_wrong_tokens_of_who_cannot_be_told_apart_hides_the_right_one(
    address: str | None,
) -> None:
    clock = Clock()
    door = access(clock)
    logged_in = login(door)
    answers = [door.refusal(bearer("wrong"), address) for _ in range(20_000)]
    assert answers.count(401) == 200
    assert door.refusal(bearer(TOKEN), address) == 429
    assert door.check(TOKEN, address) == 429
    assert door.refusal(logged_in, address) is None
    assert door.refusal(bearer(TOKEN), VISITOR) is None
    clock.now += 1
    assert door.refusal(bearer(TOKEN), address) is None


def test_wrong_tokens_of_many_addresses_give_none_of_them_more_tries() -> None:
    door = access()
    for n in range(3000):
        door.refusal(bearer("wrong"), f"9.{n // 250}.{n % 250}.8")
    answers = [door.refusal(bearer("wrong"), VISITOR) for _ in range(30)]
    assert answers.count(401) == 10
    assert door.refusal(bearer(TOKEN), VISITOR) == 429
    assert door.refusal(bearer(TOKEN), "10.0.0.1") is None


def login(door: Access) -> dict[str, str]:
    answer = Response()
    door.log_in(answer, path="/_capi", secure=True)
    cookie = answer.headers["set-cookie"]
    for word in ("HttpOnly", "SameSite=strict", "Secure", "Path=/_capi"):
        assert word in cookie
    return {"cookie": cookie.partition(";")[0]}


def test_a_login_lasts_for_its_time() -> None:
    clock = Clock()
    door = access(clock)
    headers = login(door)
    assert door.refusal(headers, VISITOR) is None
    clock.now += LOGIN_SECONDS
    assert door.refusal(headers, VISITOR) == 401


def test_a_login_that_was_changed_or_signed_elsewhere_is_none() -> None:
    door = access()
    name, _, value = login(door)["cookie"].partition("=")
    later = str(int(value.split(".")[0]) + 9) if value[0].isdigit() else "9" + value
    assert door.refusal({"cookie": f"{name}={later}{value[len(later) :]}"}, VISITOR) == 401
    other = access(secret_key="another secret of more than 32 characters")
    assert other.refusal(login(door), VISITOR) == 401
    assert door.refusal({"cookie": f"{COOKIE}="}, VISITOR) == 401


def test_another_token_ends_all_logins() -> None:
    headers = login(access())
    assert access().refusal(headers, VISITOR) is None
    assert access(report_token="a new token of tests").refusal(headers, VISITOR) == 401
