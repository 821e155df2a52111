"""Flags: what somebody should look at, with the evidence, an explanation and the fix.

A flag is one function under `@check`, in the file of its subject, and looks at Facts alone. Its
sentences stand in texts.toml.
"""

from typing import get_args

from capi_middleware.report.flags import copies, delivery, site
from capi_middleware.report.flags.registry import CHECKS, Facts
from capi_middleware.report.model import Flag, Severity

#: Where flags stand. To import a file is to register what is in it.
SUBJECTS = (copies, delivery, site)

__all__ = ["CHECKS", "SUBJECTS", "Facts", "flags_of"]


def flags_of(facts: Facts) -> list[Flag]:
    """The gravest first; within a severity by event and pixel, those about no event first."""
    found = [one for judge in CHECKS.values() for one in judge(facts)]
    gravity = {severity: at for at, severity in enumerate(get_args(Severity))}
    return sorted(found, key=lambda one: (gravity[one.severity], one.event_name, one.pixel_id))
