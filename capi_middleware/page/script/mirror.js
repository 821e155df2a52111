// Takes in the page's own pixel calls.
// While the page asks for its events, its own wait: they could be told no id.
const waiting = [];
let adopt = call => (/^track/.test(call[0]) ? waiting.push(call) && [] : [call]);
const watch = () => {
	let inside, current = window.fbq;
	const queue = !own && current?.queue || []; // of the library, too, while it waits for its settings
	queue.splice(0, queue.length, ...[...queue].flatMap(call => adopt(call, true)));
	const wrap = given => {
		if (!given || !given.queue || wrapped.has(given)) return given;
		const made = new Proxy(given, { apply: (f, self, call) => {
			if (inside) return f.apply(self, call); // by a wrapper of the page's own
			inside = true;
			try { adopt(call).forEach(one => f.apply(self, one)); } finally { inside = false; }
		} });
		wrapped.set(made, given);
		given.push = made;
		if (window._fbq === given) window._fbq = made;
		return made;
	};
	current = wrap(current); // its second name may be called first
	// A second library comes with a function of its own, which gets its queue after its name.
	Object.defineProperty(window, 'fbq', {
		configurable: true, enumerable: true, get: () => current = wrap(current), set: f => { current = f; },
	});
};
const release = safe(() => {
	if (!heard) adopt = call => [call];
	for (const call of waiting.splice(0)) window.fbq(...call);
});

const mirror = () => {
	// An event_id of the page's own.
	const make = () => 'm' + data.k[1].slice(1, 20) + '-' + copies.length;
	// A call that is not ours: its copies are watched, and the site is told of it unless it has `e`.
	heard = (n, i, p, b, d, more) => {
		if (!i) [i, b] = [make(), true];
		for (const one of p) copies.push({ i, n, p: one, b, e: { i, n, d }, ...more });
		if (n === 'PageView') for (const one of p) viewed[one] = bare(location);
		if (!(more?.e || asImage)) post({ r: document.referrer, o: home, m: [{ n, i, p, d, b }] }).catch(noop);
		return copies[copies.length - 1];
	};
	// The calls that one of the page's own becomes: to those of our pixels that take the event. What is
	// not an event of this page is told to the site; with data.m it gets an event_id of ours.
	adopt = (call, early) => safe(() => {
		const [method, ...rest] = call;
		if (method === 'init') sites.push(String(rest[0]));
		if (!/^track(Single)?(Custom)?$/.test(method) || !data.k) return;
		const single = /Single/.test(method), at = +single, name = String(rest[at]), given = rest[at + 2] || {};
		// A call that waits in the queue comes before our own init of a pixel.
		const reached = data.p.filter(p => !early || sites.includes(p.id));
		const takers = reached.filter(p => single ? p.id === String(rest[0]) : !p.ev || p.ev.includes(name));
		// A page has one PageView for a pixel, whose ever it is and by whichever call.
		const once = name === 'PageView' && !fbq.allowDuplicatePageViews;
		// The library takes numbers, too, and an object around the id.
		const told = given.eventID ?? given.event_id, theirs = String(told?.eventID ?? told ?? '');
		// The address changed, and its PageView is asked for: with an id.
		if (once && asked && !theirs) return asked.then(() => window.fbq(...call)) && [];
		const custom = rest[at + 1] || {}, { value, currency } = custom;
		const v = value == null ? [] : [String(value), String(currency)];
		// One that comes by a wrapper of the page's own comes a second time.
		const known = copies.filter(c => same(c, theirs, name));
		for (const c of known) c.v = v;
		const comes = p => known.some(c => c.p === p && !c.left);
		const pixels = takers.map(p => p.id).filter(p => !once || !isViewed(p) || comes(p));
		const again = once && ids.some(p => viewed[p]);
		if (pixels.length && !known.length) {
			const twin = early && (once || !theirs) && data.e.find(e => e.n === name && pixels.every(p => e.p.includes(p)));
			const id = twin ? twin.i : theirs || make(), nameless = !theirs && !twin && !data.m;
			heard(name, id, pixels, nameless, custom, twin ? { v, e: twin } : { v });
			expire();
			if (!nameless) rest.splice(at + 1, 2, custom, { ...given, eventID: id });
		}
		if (single) return takers.length && !pixels.length ? [] : [[method, ...rest]];
		if (!again && takers.length === reached.length) return [[method, ...rest]];
		const others = [...new Set(sites)].filter(id => !ids.includes(id) && !(once && isViewed(id)));
		if (once) for (const id of others) viewed[id] = bare(location);
		return pixels.concat(others).map(id => [method.replace('track', 'trackSingle'), id, ...rest]);
	})() || [call];
	// What was sent past this script: before it ran, or in a frame. It can be told no id.
	missed = safe(entry => {
		if (!pixel.test(entry.name)) return;
		const url = new URL(entry.name), get = url.searchParams, p = get.get('id'), id = get.get('eid');
		if (!ids.includes(p) || get.get('es') === 'automatic' || copies.some(c => id && c.i === id)) return;
		const c = heard(get.get('ev'), id, [p], false, {}, { left: true });
		if (arrived(entry) || data.c) return settle(c, arrived(entry) ? 'sent' : 'unknown');
		send(url.origin + url.pathname + '?id=' + p, { mode: 'no-cors', credentials: 'omit' })
			.then(() => settle(c, 'sent'), () => settle(c, 'unknown'));
	});
	const frame = safe(({ contentDocument: inner, contentWindow: its }) => { // without a tag of its own
		if (inner && !inner.querySelector('[data-c]')) new its.PerformanceObserver(list =>
			list.getEntries().forEach(missed)).observe({ type: 'resource', buffered: true });
	});
	if (!own && data.k) {
		began = performance.now();
		performance.getEntriesByType('resource').forEach(missed);
		// What is on its way has no timing yet, but the library counts it.
		for (const p of ids)
			if (fbq.instance?.pixelsByID[p]?.eventCount > copies.filter(c => c.p === p).length) viewed[p] = bare(location);
	}
	if (!data.a) watch();
	for (const call of waiting.splice(0)) adopt(call, true).forEach(one => safe(fbq)(...one));
	document.querySelectorAll('iframe').forEach(frame);
	on(document, 'load', e => frame(e.target));
};
