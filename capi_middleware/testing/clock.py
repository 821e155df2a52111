"""A clock that stands still until a test moves it."""


class FrozenClock:
    """Unix time in seconds, for the `clock` of FakeMeta and MemoryStore.

    Call it for the time; set `now`, or move it on with `advance`.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now: float = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
