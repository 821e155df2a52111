import pytest

from capi_middleware.capture.agents import agent_of, device_of

APPLE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
ANDROID = "Mozilla/5.0 (Linux; Android 15; SM-S931B) AppleWebKit/537.36 (KHTML, like Gecko)"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("family", "user_agent"),
    [
        ("Chrome", f"{WINDOWS} Chrome/138.0.0.0 Safari/537.36"),
        ("Chrome", f"{ANDROID} Chrome/138.0.0.0 Mobile Safari/537.36"),
        ("Chrome", f"{APPLE} CriOS/138.0.7204.33 Mobile/15E148 Safari/604.1"),
        ("Safari", f"{MAC} Version/18.5 Safari/605.1.15"),
        ("Safari", f"{APPLE} Version/18.5 Mobile/15E148 Safari/604.1"),
        ("Firefox", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Firefox", f"{APPLE} FxiOS/140.0 Mobile/15E148 Safari/605.1.15"),
        ("Edge", f"{WINDOWS} Chrome/138.0.0.0 Safari/537.36 Edg/138.0.3351.55"),
        ("Edge", f"{ANDROID} Chrome/138.0.0.0 Mobile Safari/537.36 EdgA/138.0.3351.55"),
        ("Samsung Internet", f"{ANDROID} SamsungBrowser/28.0 Chrome/130.0.0.0 Safari/537.36"),
        ("Opera", f"{WINDOWS} Chrome/137.0.0.0 Safari/537.36 OPR/120.0.0.0"),
        (
            "Facebook",
            f"{APPLE} Mobile/15E148 [FBAN/FBIOS;FBAV/518.0.0.52.100;FBDV/iPhone14,3]",
        ),
        (
            "Facebook",
            f"{ANDROID[:-1]}; wv) Version/4.0 Chrome/138.0.0.0 Mobile Safari/537.36 "
            "[FB_IAB/FB4A;FBAV/518.0.0.60.95;]",
        ),
        ("Instagram", f"{APPLE} Mobile/15E148 Instagram 387.0.0.36.90 (iPhone14,3; iOS 18_5)"),
        (
            "Instagram",
            "Mozilla/5.0 (Linux; Android 15; SM-S931B; wv) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Version/4.0 Chrome/138.0.0.0 Mobile Safari/537.36 Instagram 387.0.0.33.85 Android",
        ),
        (
            "In-app",
            "Mozilla/5.0 (Linux; Android 15; Pixel 9; wv) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Version/4.0 Chrome/138.0.0.0 Mobile Safari/537.36",
        ),
        ("In-app", f"{APPLE} Mobile/15E148"),
        ("In-app", f"{APPLE} GSA/376.0.775 Mobile/15E148 Safari/604.1"),
        ("Other", f"{WINDOWS} Chrome/136.0.0.0 YaBrowser/25.6.0.0 Safari/537.36"),
        ("Other", "curl/8.14.1"),
        ("", ""),
        ("", None),
    ],
)  # fmt: skip
def test_the_family_of_a_browser(family: str, user_agent: str | None) -> None:
    assert agent_of(user_agent) == family


@pytest.mark.parametrize(
    ("device", "user_agent"),
    [
        ("phone", f"{APPLE} Version/18.5 Mobile/15E148 Safari/604.1"),
        ("phone", ANDROID + " Chrome/138.0.0.0 Mobile Safari/537.36"),
        ("phone", "Opera/9.80 (J2ME/MIDP; Opera Mini/9.80; U; en) Presto/2.5.25 Version/10.54"),
        ("tablet", "Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E"),
        ("tablet", "Mozilla/5.0 (Linux; Android 15; SM-X710) Chrome/138.0.0.0 Safari/537.36"),
        ("tablet", "Mozilla/5.0 (Android 15; Tablet; rv:140.0) Gecko/140.0 Firefox/140.0"),
        ("computer", f"{WINDOWS} Chrome/138.0.0.0 Safari/537.36"),
        ("computer", "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/138.0.0.0 Safari/537.36"),
        ("computer", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("TV", "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 Chrome/108.0 Safari/537.36"),
        ("TV", "Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15"),
        ("", "curl/8.14.1"),
        ("", ""),
    ],
)
def test_the_device_of_a_browser(device: str, user_agent: str) -> None:
    assert device_of(user_agent) == device
