"""What the error codes of the Graph API mean to the people who run the site.

Codes from Meta's pages "Handling Errors" and "Rate Limits"; subcodes as seen in answers.
"""

_TOKEN = (
    "the access token was refused",
    "Make a new access token in Events Manager (Settings, Conversions API) and give it to the "
    "Pixel: delivery resumes as soon as a process has it. A system user's token does not run out.",
)
_PERMISSION = (
    "the access token may not send to this pixel",
    'In Business settings give the token\'s system user the pixel with the task "Manage", or make '
    "the token in Events Manager for this very pixel.",
)
_THROTTLED = (
    "Meta throttles this app or account",
    "Nothing to do at once: delivery resumes by itself. If it lasts, ask for a higher access tier "
    "of the Marketing API.",
)
_MEANINGS = {
    "code 190": _TOKEN,
    "code 102": _TOKEN,
    "code 10": _PERMISSION,
    "code 3": _PERMISSION,
    "code 100/33": (
        "there is no such pixel, or the token has no access to it",
        "Compare the id of the Pixel with Events Manager, and make the token for that pixel.",
    ),
    "code 104": (
        "the app secret does not belong to the token",
        "Give Pixel(app_secret=...) the secret of the app that made the access token.",
    ),
    "code 100/2804003": (
        "the events were more than 7 days old",
        "Keep delivery running; the clock of the server must be right.",
    ),
    "code 100/2804004": (
        "the events were in the future",
        "Let the machine take its time from the network.",
    ),
    "code 100/2804008": (
        "an item of contents has no id",
        'Give every item of contents an "id".',
    ),
    "code 100/2804009": (
        "a Purchase has no value",
        'Add value and currency: EventRoute(custom_data={"value": ..., "currency": "EUR"}) or '
        'track("Purchase", value=order.total, currency=order.currency).',
    ),
    "code 100/2804016": (
        "a user_data field was not hashed",
        "Give customer information as UserData(...): it hashes what must be hashed.",
    ),
    "code 100/2804023": (
        "a value came without a currency",
        "Give value and currency together.",
    ),
    "code 100/2804050": (
        "the events say too little about the customer",
        "Keep current_visitor().dumps() with the order and give it back in the webhook, and add "
        "user_data: e-mail, phone or external_id.",
    ),
}
_MEANINGS["code 100/2804010"] = _MEANINGS["code 100/2804009"]
_MEANINGS |= {f"code {code}": _THROTTLED for code in (4, 17, 32, 341, 368, 613)}
_MEANINGS |= {f"code {code}": _THROTTLED for code in range(80000, 80015)}
_MEANINGS |= {f"code {code}": _PERMISSION for code in range(200, 300)}
_MEANINGS["usage"] = _THROTTLED


def meaning_of(reason: str) -> tuple[str, str]:
    """(what it means, what to do) for a reason such as "code 100/2804010 custom_data.value"."""
    code, _, fields = reason.partition(" ")[2].partition(" ")
    known = _MEANINGS.get(f"code {code}") or _MEANINGS.get(f"code {code.partition('/')[0]}")
    if reason in _MEANINGS:
        known = _MEANINGS[reason]
    if known is None:
        known = (
            "Meta found something wrong with them",
            "See one with `capi-middleware dead-letters show`, and send it with a test_event_code "
            "to see Meta's words in Events Manager.",
        )
    meaning, fix = known
    return (f"{meaning}; Meta names {fields}" if fields else meaning), fix
