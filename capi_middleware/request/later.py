"""Later: what a page that was shown already asks for, and what it tells of its own pixel calls."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from capi_middleware.capture.beacon import Call
from capi_middleware.events import Count, Event
from capi_middleware.meta.custom_data import clean
from capi_middleware.request.drafting import Draft
from capi_middleware.request.exchange import Exchange
from capi_middleware.request.issuing import Issuer
from capi_middleware.steps import Steps


class Later(Exchange):
    """The Exchange of a page whose script speaks to {prefix}/t."""

    def ask(self) -> Steps[list[Event]]:
        """The events of a page that carried no event_ids: its script asks for them now.

        That is a page that others may have got too, or one that a script made of parts.
        """
        self.drafting.matches = [
            match
            for match in self.drafting.matches
            if match.route.counts(200) and match.route.event_name != "Purchase"
        ]
        if self.admission.noise is None:
            yield from self.admission.decide()
        self._page_view = self.config.page_view and not self.excluded
        refusal = self.admission.refusal
        if refusal is not None:
            self.admission.deny()
            self._suppress(refusal)
            return []
        self.visit.sets_cookies = True
        yield from self.drafting.complete(self._page_view)
        events = self._page_events()
        yield from self._commits
        return events

    def mirror(self, calls: Sequence[Call]) -> Steps[None]:
        """Events that the page's own pixel code fired: their server copies, where they may be.

        What may not be sent from here is written down as the browser's alone.
        """
        self.drafting.matches = []
        for call in calls:
            for event in mirrored(self.issuer, call):
                self.drafting.drafts.append(Draft(event, tracked=True))
                # The library's own PageViews are nobody's to map.
                if event.send == "browser" and call.n != "PageView":
                    page = self.issuer.page_of(self.scope["path"])
                    self.issuer.count(
                        *(Count("unmapped", page, call.n, pixel) for pixel in event.pixel_ids)
                    )
                    if call.b:
                        bare = [Count("no_event_id", "", call.n, one) for one in event.pixel_ids]
                        self.issuer.count(*bare)
        if self.admission.noise is None:
            yield from self.admission.decide()
        refusal = self.admission.refusal
        if refusal is not None:
            self._suppress(refusal)
            return
        yield from self.drafting.complete(page_view=False)
        self._issue(self.drafting.drafts, "not_run")
        yield from self._commits


def mirrored(issuer: Issuer, call: Call) -> Iterable[Event]:
    """A call's event, apart for pixels that get a server copy and those that do not."""
    mirror = issuer.mirror
    event = issuer.new_event(call.n, call.i, None)
    event.custom_data = clean(call.n, mirror.custom_data(call.n, call.d))[0]
    ours = event.pixel_ids if mirror.takes(call.n) and not call.b else ()
    fired = [one.id for one in issuer.config.pixels if one.id in call.p]
    for send, pixel_ids in (
        ("both", tuple(one for one in fired if one in ours)),
        ("browser", tuple(one for one in fired if one not in ours)),
    ):
        if pixel_ids:
            yield replace(event, send=send, pixel_ids=pixel_ids, user_data={})
