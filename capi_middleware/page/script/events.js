// Fires the events of this page, and those that come later: each once.
// Was the id fired in this tab, in 7 days? One made from a dedupe_key ("k..."): in this browser, ever?
const fired = safe((id, add, once, list = '_capi') => {
	const memory = once || id[0] === 'k' ? localStorage : sessionStorage;
	const ids = JSON.parse(memory[list] || '[]').filter(([old, at]) => old[0] === 'k' || at > Date.now() - 6048e5);
	const known = ids.some(([old]) => old === id);
	if (add && !known) memory[list] = json([[id, Date.now()], ...ids].slice(0, 200));
	return known;
});
// `at` is the address of a page that scripts fetch, maybe before it is shown. What is `minted` for a
// fresh document was fired nowhere: to ask the browser's memory would cost more than all the rest.
const fire = (events, at, minted) => {
	if (silent) return;
	// A tab closed while loading runs pagehide only if somebody listens to this; WebKit runs this alone.
	addEventListener('beforeunload', away);
	const isNew = (e, p) => !copies.some(c => same(c, e.i, e.n) && c.p === p)
		&& (minted && e.i[0] === 't' && !e.o || !fired(e.i, false, e.o));
	for (const e of events) for (const p of e.p.filter(p => isNew(e, p))) {
		// A page has one PageView for a pixel, whose ever it is.
		const view = e.n === 'PageView', second = view && !at && isViewed(p);
		copies.push({ i: e.i, n: e.n, p, o: e.o, e, ...second && { left: true, is: 'unknown' } });
		if (view) viewed[p] = at || bare(location);
		if (!second) safe(fbq)(e.c ? 'trackSingleCustom' : 'trackSingle', p, e.n, e.d, { eventID: e.i });
	}
	review();
	expire();
};
