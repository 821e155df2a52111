"""Noise: who reads a page without visiting it."""

import pytest

from capi_middleware.capture.client import noise

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 "
    "Safari/537.36"
)


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)",
        "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    ],
)
def test_a_crawler_is_a_bot(agent: str) -> None:
    assert noise("GET", "/", {"user-agent": agent}) == "bot"


@pytest.mark.parametrize(
    "agent",
    [
        CHROME.format(156),
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
        "Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/400.0;FBDV/iPhone14,2]",
        "python-httpx/0.28",
        "testclient",
        "",
    ],
)
def test_a_browser_and_the_apps_own_clients_are_none(agent: str) -> None:
    assert noise("GET", "/", {"user-agent": agent}) is None


def test_what_a_named_service_posts_is_no_crawling() -> None:
    assert noise("POST", "/webhook", {"user-agent": "Stripe/1.0 (+https://stripe.com)"}) is None


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "agent",
    [
        CHROME.replace("Chrome", "HeadlessChrome").format(142),
        f"{CHROME.format(120)} Playwright/1.40.0",
        "Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1",
    ],
)
def test_a_browser_that_a_program_drives_is_a_bot_whatever_it_does(method: str, agent: str) -> None:
    assert noise(method, "/", {"user-agent": agent}) == "bot"


@pytest.mark.parametrize(
    ("path", "agent"),
    [("/", "kube-probe/1.29"), ("/", "ELB-HealthChecker/2.0"), ("/healthz", CHROME.format(1))],
)
def test_a_health_check_is_no_visit(path: str, agent: str) -> None:
    assert noise("GET", path, {"user-agent": agent}) == "health_check"


@pytest.mark.parametrize(
    "header",
    [
        ("sec-purpose", "prefetch;prerender"),
        ("purpose", "prefetch"),
        ("x-moz", "prefetch"),
        ("x-sec-purpose", "prefetch"),
        ("hx-preloaded", "true"),
        ("vnd.prefetch", "true"),
        ("x-up-version", "3.14.3"),
        ("x-requested-with", "swup"),
        ("x-barba", "yes"),
    ],
)
def test_a_prefetch_is_no_visit_yet(header: tuple[str, str]) -> None:
    assert noise("GET", "/", dict([header])) == "prefetch"


def test_a_head_is_no_visit() -> None:
    assert noise("HEAD", "/", {}) == "head"


@pytest.mark.parametrize(
    ("destination", "reason"),
    [("image", "subresource"), ("style", "subresource"), ("document", None), ("iframe", None),
     ("empty", None)],
)  # fmt: skip
def test_a_page_in_the_place_of_a_picture_is_no_visit(destination: str, reason: str | None) -> None:
    assert noise("GET", "/favicon.ico", {"sec-fetch-dest": destination}) == reason
    navigation = {"sec-fetch-dest": destination, "sec-fetch-mode": "navigate"}
    assert noise("GET", "/favicon.ico", navigation) is None
