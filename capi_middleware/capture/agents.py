"""Agents: the browser family that a user agent names, for the report's split by browser."""

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
