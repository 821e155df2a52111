"""Consent: the site's answer, the ready rules for consent cookies, and Global Privacy Control."""

from capi_middleware.capture.consent.cookies import READY_RULES
from capi_middleware.capture.consent.rule import DENIED, GRANTED, ConsentRule, Permission

__all__ = ["DENIED", "GRANTED", "READY_RULES", "ConsentRule", "Permission"]
