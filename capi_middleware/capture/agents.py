"""Agents: the browser family and the device that a user agent names, for the report's splits."""

from functools import lru_cache

#: In this order: the later a word, the more browsers say it of themselves as well.
_RULES = (
    ("Instagram", ("Instagram ",)),
    ("Facebook", ("FBAN/", "FBAV/", "FB_IAB/", "FBIOS")),
    (
        "In-app",
        ("; wv)", "GSA/", "Line/", "MicroMessenger/", "Pinterest", "Snapchat", "BytedanceWebview",
         "musical_ly", "Twitter for ", "LinkedInApp"),
    ),
    ("Samsung Internet", ("SamsungBrowser/",)),
    ("Opera", ("OPR/", "OPX/", "OPT/", "OPiOS/", "Opera")),
    ("Edge", ("Edg/", "EdgA/", "EdgiOS/", "Edge/")),
    ("Firefox", ("Firefox/", "FxiOS/")),
    (
        "Other",
        ("YaBrowser/", "UCBrowser/", "MiuiBrowser/", "HuaweiBrowser/", "Vivaldi/", "Silk/",
         "DuckDuckGo/", "Ddg/"),
    ),
    ("Chrome", ("Chrome/", "CriOS/", "Chromium/")),
)  # fmt: skip
_APPLE = ("iPhone", "iPad", "iPod", "Macintosh")
#: In this order: Android says "Mobile" of phones alone, televisions say that they are Linux.
_DEVICES = (
    ("TV", ("SmartTV", "SMART-TV", "Smart-TV", "AppleTV", "GoogleTV", "Android TV", "Web0S",
            "HbbTV", "BRAVIA", "AFTS", "AFTM", "CrKey", "PlayStation", "Xbox", "Nintendo")),
    ("tablet", ("iPad", "Tablet", "PlayBook", "Kindle", "KFTT", "Silk/")),
    ("phone", ("iPhone", "iPod", "Mobile", "Opera Mini", "IEMobile")),
    ("tablet", ("Android",)),
    ("computer", ("Windows NT", "Macintosh", "X11", "CrOS", "Linux")),
)  # fmt: skip


@lru_cache(maxsize=512)
def agent_of(user_agent: str) -> str:
    """The browser family: "Chrome", "Safari"..., "Facebook" and "Instagram" for their own apps.

    Other apps that show pages are "In-app", whatever else "Other"; "" without a user agent.
    Chrome on iOS is Chrome, though its engine is Safari's: the person chose a browser.
    """
    if not user_agent:
        return ""
    for family, words in _RULES:
        for word in words:
            if word in user_agent:
                return family
    if any(device in user_agent for device in _APPLE) and "AppleWebKit/" in user_agent:
        # A page that an app shows on iOS says all that Safari says, but not its name.
        return "Safari" if "Safari/" in user_agent else "In-app"
    return "Other"


@lru_cache(maxsize=512)
def device_of(user_agent: str) -> str:
    """The device: "phone", "tablet", "computer", "TV" (and consoles), or "" where it is not told.

    An iPad that asks for pages as a computer does is one: nothing in its user agent differs.
    """
    for device, words in _DEVICES:
        for word in words:
            if word in user_agent:
                return device
    return ""
