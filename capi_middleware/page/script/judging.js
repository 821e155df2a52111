// Carries the requests of Meta's library, so that each tells what became of it.
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
// Loads fail, too, where the page is left (for one that may be slow) or stopped: then it is complete
// without a load event.
const gone = () => Date.now() - cut < 10000 || document.readyState === 'complete'
	&& performance.getEntriesByType('navigation').some(one => !one.loadEventStart);
const away = safe(() => { cut = Date.now(); review('left_early'); leftover(); });
// Unlike the page's own list this one has no end, and nobody clears it.
const timings = {};
let missed, began = 0; // hears of what was sent before it
const see = list => list.forEach(entry => {
	timings[entry.name] = entry;
	if (entry.startTime < began) missed(entry);
});
const observer = new PerformanceObserver(list => see(list.getEntries()));
// An extension's redirect has no timing, a delivered request has one: soon.
const timed = async (url, patience = 20) => {
	see(observer.takeRecords());
	return timings[url] || patience && new Promise(later).then(() => timed(url, patience - 1));
};
// What an image came to shows only if the answer is a picture; fetch() tells of any, and of this
// very request. Where the page's policy refuses it, `otherwise` sends it as the library meant to.
const carry = (to, body, how, otherwise) => {
	const { href, pathname, searchParams } = new URL(to, document.baseURI), fields = body || searchParams;
	if (!/\/tr\/?$/.test(pathname) || !fields.has('ev')) return;
	const c = leave(name => fields.get(name));
	if (!c) return; // of a pixel that is not ours
	c.carried = !data.c;
	if (data.c) otherwise(c, href);
	else send(href, { mode: 'no-cors', credentials: 'include', keepalive: true, ...how }).then(async answer => {
		const delivered = answer.type === 'opaque' && (body || await timed(href));
		// What a worker or a script of the page made up has the type "default".
		settle(c, delivered ? 'sent' : answer.type === 'default' ? 'unknown' : 'request_replaced');
	}, () => new Promise(later).then(() => {
		if (!csp(href, 'connect')) return settle(c, gone() ? 'left_early' : 'request_blocked');
		c.carried = false;
		data.c = 1;
		otherwise(c, href);
	})).catch(noop);
	return true;
};
const judge = async (c, url, loaded) => {
	const entry = await timed(url, 1);
	if (csp(url, 'img')) settle(c, 'csp');
	else if (entry && (loaded || arrived(entry))) settle(c, 'sent');
	else settle(c, loaded ? 'request_replaced' : 'unknown');
};
const carryPost = (to, body, keepalive, go) =>
	carry(to, body, { method: 'POST', body, keepalive }, c => { go(); settle(c, 'unknown'); });
// The library's own ways: images; and what is long in frames (Chromium), by sendBeacon (the others).
const carriers = () => {
	observer.observe({ entryTypes: ['resource'] });
	const image = HTMLImageElement.prototype, src = Object.getOwnPropertyDescriptor(image, 'src');
	before(src, 'set', function (go, to) {
		return pixel.test(to) && carry(to, 0, {}, (c, url) => {
			for (const type of ['load', 'error']) on(this, type, () => later(() => judge(c, url, type === 'load').catch(noop)));
			go();
		});
	});
	safe(() => Object.defineProperty(image, 'src', src))(); // frozen by some
	before(HTMLFormElement.prototype, 'submit', function (go) { // of fields alone, and without an event
		sent(this);
		return this.target && carryPost(this.action, new URLSearchParams(new FormData(this)), false, go);
	});
	before(navigator, 'sendBeacon', (go, to, body) => carryPost(to, body, true, go));
};
