// Fires the events of this page, and those that come later: each once.
// Was the id fired in this tab? One made from a dedupe_key ("k..."): in this browser, in 7 days?
const fired = safe((id, add, once) => {
	const memory = once || id[0] === 'k' ? localStorage : sessionStorage;
	const ids = JSON.parse(memory._capi || '[]').filter(([, at]) => at > Date.now() - 6048e5);
	const known = ids.some(([old]) => old === id);
	if (add && !known) memory._capi = JSON.stringify([[id, Date.now()], ...ids].slice(0, 200));
	return known;
});

// What had no time to leave with the page before this one; a PageView is of its own page alone.
const left = safe(() => {
	const events = JSON.parse(sessionStorage._capi_left || '[]');
	sessionStorage.removeItem('_capi_left');
	return events;
});
const leftover = safe(() => {
	const events = copies.filter(c => !c.left && c.is === 'left_early' && c.n !== 'PageView')
		.map(({ e, p }) => ({ ...e, p: [p] }));
	if (events.length) sessionStorage._capi_left = JSON.stringify(events);
});

const fire = events => {
	// A tab closed while loading runs pagehide only if somebody listens to this.
	addEventListener('beforeunload', noop);
	for (const e of events) if (!fired(e.i, false, e.o)) for (const p of e.p) {
		if (copies.some(c => same(c, e.i, e.n) && c.p === p)) continue;
		copies.push({ i: e.i, n: e.n, p, o: e.o, e });
		safe(fbq)(e.c ? 'trackSingleCustom' : 'trackSingle', p, e.n, e.d, { eventID: e.i });
	}
	review();
	expire();
};

const more = events => {
	const before = fbq.allowDuplicatePageViews;
	fbq.allowDuplicatePageViews = true; // each has an event_id of its own
	fire(events);
	// A PageView that the site's own code sends for the same address is a second one, as ever.
	if (fbq.callMethod && !fbq.queue.length) fbq.allowDuplicatePageViews = before;
};
const place = more => JSON.stringify({ u: location.href, ...more });
// A page that others may have got, too, knows neither its events nor this visitor's consent; those
// of one that was fetched ahead wait until it is shown (w), or a part of it (f); h has it already.
const tell = about => fetch(site + '/t', {
	method: 'POST', keepalive: true, body: place({ k: data.k, y: data.y, ...about }),
}).then(answer => answer.json());
const question = about => tell(about).then(given => {
	if (given.x === data.x) more(given.e);
});
