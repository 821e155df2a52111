// Finds out what became of each copy, and tells the site.
const lost = {}; // why no event can leave: by pixel, '' for all
const refused = []; // URLs that the page's CSP refused
const timings = {};
let listening, late, asImage, probing, observer;

const arrived = entry => entry.transferSize || entry.nextHopProtocol;
const csp = part => refused.some(url => url.includes(part));
const locked = safe(name => RegExp(`"(${name})`).test(json(fbq.instance.locks)));
const see = list => list.forEach(entry => { timings[entry.name] = entry; });

const report = () => {
	const news = copies.filter(c => c.is && c.is !== c.said);
	if (!news.length) return;
	const body = json({ e: news.map(c => [c.i, c.n, c.p, c.said = c.is].concat(c.v || [])), k: data.k });
	if (asImage || !beam(beacon, body))
		new Image().src = beacon + '?e=' + encodeURIComponent(body);
};

// What an open copy has come to when time is up.
const guess = safe((c, end) => {
	if (c.left) return end;
	if (locked('consent')) return 'consent';
	if (end !== 'unknown') return end;
	if (!fbq.callMethod) return 'script_blocked';
	if (locked('config:|plugin:')) return 'config_blocked';
	// A page has one PageView, and it may not have been ours.
	if (fbq.queue.length || c.n === 'PageView' && (data.a || !own)) return end;
	return fbq.instance.pixelsByID[c.p].eventCount && 'bot';
});

const review = end => {
	late = late || end;
	for (const c of copies) {
		if (!c.left) c.is = lost[''] || lost[c.p] || c.is;
		if (end && !c.is) c.is = guess(c, end) || end;
	}
	if (!late && copies.some(c => !c.is)) return;
	removeEventListener('beforeunload', noop);
	report();
};
const expire = () => setTimeout(safe(review), 6000, 'unknown');
const settle = (c, outcome) => {
	if (c.is !== 'sent') c.is = outcome;
	review();
};

// An empty answer is an image error, too: can the host be reached at all?
const probe = url => probing = probing || fetch(url, { mode: 'no-cors', credentials: 'omit' })
	.then(() => 'sent', () => new Promise(later).then(() => csp(url) ? 'unknown' : 'request_blocked'))
	.then(outcome => {
		later(() => { probing = 0; }); // what fails later is asked anew: a blocker may be on by then
		return outcome;
	});

const shown = () => performance.getEntriesByType('navigation').every(one => one.loadEventStart);
const judge = (c, url, loaded) => {
	see(observer.takeRecords());
	const entry = timings[url.href];
	const [part] = /\beid=[^&]*/.exec(url.search) || [url.href]; // as it travels: percent-encoded
	if (csp(part)) settle(c, 'csp');
	else if (entry && (loaded || arrived(entry))) settle(c, 'sent');
	else if (loaded) settle(c, 'request_replaced'); // an extension's redirect has no timing
	else if (!entry || c.cut || locked('consent')) settle(c, 'unknown');
	// A page that is stopped while it loads fails its images, too, and never sees its load event.
	else if (!shown()) on(window, 'load', () => later(() => judge(c, url)));
	else probe(url.origin + url.pathname + '?id=' + c.p).then(outcome => settle(c, outcome));
};

const leave = (get, word) => {
	const name = get('ev'), given = get('eid');
	const id = /^ob3_/.test(given) ? '' : given; // OpenBridge gives one to what has none
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
const watch = safe((img, src) => {
	if (!pixel.test(src)) return;
	if (!observer) { // unlike the page's own list it has no end, and nobody clears it
		observer = new PerformanceObserver(list => see(list.getEntries()));
		observer.observe({ entryTypes: ['resource'] });
	}
	const url = new URL(src, location), c = leave(name => url.searchParams.get(name));
	for (const type of ['load', 'error'])
		on(img, type, () => later(() => judge(c, url, type === 'load')));
});

// The library's own word: no proof, but the only sign of a form POST.
const listen = safe(() => {
	if (listening || !fbq.callMethod) return;
	listening = true;
	fbq.getFbeventsModules('SignalsFBEventsFiredEvent').listen(safe((method, payload) => {
		const c = leave(name => payload.get(name), true);
		if (method !== 'GET') settle(c, 'unknown');
	}));
});

const script = ({ target, type }) => {
	const { src } = target, failed = type === 'error';
	const [, id = ''] = /\/signals\/config\/(\d+)/.exec(src) || [];
	listen();
	if (id || target === library || /\/fbevents\.js/.test(src)) later(() => {
		const cause = id ? 'config_blocked' : failed ? 'script_blocked' : 'script_replaced';
		if (id ? failed || locked('config:' + id) : !fbq.callMethod) lost[id] = csp(src) ? 'csp' : cause;
		review();
	});
};

// What must be listened to before the first event.
const judgement = () => {
	on(window, 'pagehide', () => { review('left_early'); leftover(); });
	on(document, 'load', script);
	on(document, 'error', script);
	on(document, 'securitypolicyviolation', ({ disposition, blockedURI: url }) => {
		if (disposition !== 'enforce') return;
		refused.push(url);
		if (asImage || !url.startsWith(beacon)) return;
		asImage = true;
		for (const c of copies) c.said = 0;
		report();
	});
	const { stop } = window;
	window.stop = () => { // what is in flight now fails without a word
		for (const c of copies) c.cut = c.left && !c.is;
		stop.call(window);
	};
	const image = HTMLImageElement.prototype, src = Object.getOwnPropertyDescriptor(image, 'src');
	const { set } = src;
	src.set = function (url) { watch(this, url); set.call(this, url); };
	safe(() => Object.defineProperty(image, 'src', src))(); // frozen by some
};
