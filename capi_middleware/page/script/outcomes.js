// Finds out what became of each copy, and tells the site.
const lost = {}; // why no event can leave: by pixel, '' for all
const refused = []; // what the page's CSP refused: its directive and the URL
let listening, late, asImage, cut, send;

const arrived = entry => entry.transferSize || entry.nextHopProtocol;
const csp = (part, kind = '') => refused.some(one => one.startsWith(kind) && one.includes(part));
const locked = safe(name => RegExp(`"(${name})`).test(json(fbq.instance.locks)));

// A page that is left asks by what no back-forward cache minds, and hears no answer.
const report = leaving => again(async () => {
	const news = copies.filter(c => c.is && c.is !== c.said);
	if (!news.length) return;
	const body = json({ e: news.map(c => [c.i, c.n, c.p, c.said = c.is].concat(c.v || [])), k: data.k });
	if (asImage || leaving && !safe(() => navigator.sendBeacon(site + '/b', body))())
		new Image().src = site + '/b?e=' + encodeURIComponent(body);
	else if (!leaving) await call('/b', body).catch(refusal => {
		if (!asImage) for (const c of news) c.said = 0;
		throw refusal;
	});
}, true).catch(noop);

const review = end => {
	late = late || end;
	for (const c of copies) {
		if (!c.left) c.is = lost[''] || lost[c.p] || c.is;
		if (end && !c.is) c.is = guess(c, end) || end;
	}
	if (!late && copies.some(c => !c.is)) return;
	removeEventListener('beforeunload', away);
	report(end === 'left_early');
};
const expire = () => setTimeout(safe(review), 6000, 'unknown');
const settle = (c, outcome) => {
	if (c.is !== 'sent') c.is = outcome;
	review();
};

const leave = (get, word) => {
	const name = get('ev'), id = (get('eid') || '').replace(/^ob3_.*/, ''); // OpenBridge's, of what has none
	// The library's word follows the picture that it is about.
	const c = copies.find(c => c.p === get('id')
		&& c.n === name && (id ? c.i === id : c.b && (word && c.img || !c.left)))
		// Sent past us: by a reference that was kept, by the library itself, by a second one.
		|| ids.includes(get('id')) && get('es') !== 'automatic' && heard(name, id, [get('id')]);
	c.left = true;
	c.img = !word;
	fired(c.i, true, c.o);
	return c;
};
// The library's own word: no proof, but the only sign where images are frozen.
const listen = safe(() => {
	if (listening || !fbq.callMethod) return;
	listening = true;
	fbq.getFbeventsModules('SignalsFBEventsFiredEvent').listen(safe((method, payload) => {
		const c = leave(name => payload.get(name), true);
		if (method !== 'GET' && !c.carried) settle(c, 'unknown');
	}));
});

const script = ({ target, type }) => {
	const { src } = target, failed = type === 'error', [, id = ''] = /\/signals\/config\/(\d+)/.exec(src) || [];
	listen();
	if (id || target === library || /\/fbevents\.js/.test(src)) later(() => {
		const cause = id ? 'config_blocked' : failed ? 'script_blocked' : 'script_replaced';
		if (id ? failed || locked('config:' + id) : !fbq.callMethod)
			lost[id] = data.i || csp(src) ? 'csp' : failed && gone() ? 'left_early' : cause;
		review();
	});
};
// What must be listened to before the first event.
const judgement = () => {
	send = window.fetch.bind(window);
	asImage = data.c > 1;
	on(window, 'pagehide', away);
	for (const type of ['load', 'error']) on(document, type, script);
	on(document, 'securitypolicyviolation', ({ disposition, effectiveDirective: kind, blockedURI: url }) => {
		if (disposition !== 'enforce') return;
		refused.push(kind + url);
		if (asImage || !url.startsWith(site + '/b')) return;
		asImage = true;
		for (const c of copies) c.said = 0;
		report();
	});
	before(window, 'stop', () => { cut = Date.now(); }); // what is in flight fails without a word
	carriers();
};
