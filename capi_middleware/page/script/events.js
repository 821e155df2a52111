// Fires the events of this page, and those that come later: each once.
// Was the id fired in this tab, in 7 days? One made from a dedupe_key ("k..."): in this browser, ever?
const fired = safe((id, add, once) => {
	const memory = once || id[0] === 'k' ? localStorage : sessionStorage;
	const ids = JSON.parse(memory._capi || '[]').filter(([old, at]) => old[0] === 'k' || at > Date.now() - 6048e5);
	const known = ids.some(([old]) => old === id);
	if (add && !known) memory._capi = json([[id, Date.now()], ...ids].slice(0, 200));
	return known;
});
// What had no time to leave with the page before this one; a PageView is of its own page alone.
const left = safe(() => {
	const events = JSON.parse(sessionStorage._capi_left || '[]');
	sessionStorage.removeItem('_capi_left');
	return events;
});
// `at` is the address of a page that scripts fetch, maybe before it is shown.
const fire = (events, at) => {
	if (silent) return;
	// A tab closed while loading runs pagehide only if somebody listens to this; WebKit runs this alone.
	addEventListener('beforeunload', away);
	const news = (e, p) => !fired(e.i, false, e.o) && !copies.some(c => same(c, e.i, e.n) && c.p === p);
	for (const e of events) for (const p of e.p.filter(p => news(e, p))) {
		// A page has one PageView for a pixel, whose ever it is.
		const view = e.n === 'PageView', second = view && !at && isViewed(p);
		copies.push({ i: e.i, n: e.n, p, o: e.o, e, ...second && { left: true, is: 'unknown' } });
		if (view) viewed[p] = at || bare(location);
		if (!second) safe(fbq)(e.c ? 'trackSingleCustom' : 'trackSingle', p, e.n, e.d, { eventID: e.i });
	}
	review();
	expire();
};

// One that the site refuses for the moment rejects with its answer.
const call = (path, body) => send(site + path, { method: 'POST', keepalive: true, credentials: 'include', body })
	.then(answer => (answer.status === 429 || answer.status >= 500 ? Promise.reject(answer) : answer));
// Later and later, or when the site says; what has no answer may have arrived, which `twice` allows.
const again = (f, twice, wait = 1000) => f().catch(async refusal => {
	if (wait > 8000 || !(twice || refusal.status)) throw refusal;
	const told = refusal.headers?.get('Retry-After') || 0;
	await new Promise(done => setTimeout(done, Math.max(wait, Math.min(told, 60) * 1000 || 0)));
	return again(f, twice, wait * 2);
});
const place = more => json({ u: location.href, ...past, ...more });
// A page that others may have got, too, knows neither its events nor this visitor's consent; those
// of one that was fetched ahead wait until it is shown (w), or a part of it (f); h has it already.
const post = about => again(() => call('/t', place({ k: data.k, y: data.y, ...about }))).then(answer => answer.json());
const tell = async about => !(data.c > 1) && (ready || post)(about);
// A visitor may have gone on while the server, or a banner, was asked: its PageView is of where it was.
const elsewhere = at => (at === bare(location) ? 0 : at);
const question = (about, at = bare(location)) => tell(about).then(given => {
	if (given.x === data.x) fire(given.e, elsewhere(at));
});
