"""Every error the product raises: sentences that name what was given, expected, and the fix."""


class CapiError(Exception):
    """Base of all errors of capi_middleware."""


class ConfigError(CapiError, ValueError):
    """A configuration that cannot work: names the file, the key, what was found and expected."""


class BadBeacon(CapiError, ValueError):
    """A beacon that is not what the pixel script sends. Attribute `status`: the HTTP answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BadVisitor(CapiError, ValueError):
    """A visitor text that this site did not sign, or of another version."""


class StoreError(CapiError):
    """The store cannot do what was asked. The driver's error is kept as the cause.

    `told`: whether the log knows already, so that an outage is not a line for each page.
    """

    told: bool = False


class StoreFull(StoreError):
    """The bounded queue in front of the store is full: the events were dropped and counted."""
