// Runs before the script on a page that the site does not answer: makes its block of `text`, which is
// the same for all visitors, and lets the page say what no cookie or header brings to another origin.
text => {
	const me = document.currentScript;
	if (!me || !('capi' in me.dataset)) return;
	const site = new URL('.', me.src).href, home = new URL('/', site).href;
	const block = document.createElement('template'); // what is text in it needs no trust
	block.dataset.c = '';
	block.textContent = text.replace('{', '{"u":"' + site.slice(0, -1) + '",');
	me.before(block);
	if (location.href.startsWith(home)) return;

	const { n } = JSON.parse(text), { fetch: get, navigator: { sendBeacon: beam } } = window;
	const jar = () => document.cookie.split('; ').filter(one => n.includes(one.split('=')[0])).join('; ');
	const told = body =>
		body.replace('{', () => '{"j":"' + jar().slice(0, 8000).replace(/["\\]/g, encodeURIComponent) + '",');
	// Cookies of its own, where those of the site are a third party's.
	const keep = async answer => {
		for (const one of (await answer.json()).j || []) document.cookie = one;
	};
	// Whose call it is, and of which page: a header of our own would ask the site for a preflight.
	const called = () => {
		const [page] = location.href.split('#'), mark = location.search ? '&' : '?';
		const whole = page + mark + '_capi=' + encodeURIComponent(jar());
		return { referrer: whole.length < 4096 ? whole : page, referrerPolicy: 'no-referrer-when-downgrade' };
	};
	const ask = (page, how) => get.call(page, site + 't', { ...how, credentials: 'include', body: told(how.body) })
		.then(answer => {
			keep(answer.clone()).catch(() => {});
			return answer;
		});
	window.fetch = function (what, how) {
		try {
			const { href } = new URL(what.url || what, document.baseURI);
			if (href === site + 't') return ask(this, how);
			if (href.startsWith(home) && !what.referrerPolicy && !document.querySelector('meta[name=referrer]'))
				how = { ...called(), ...how };
		} catch (_) {}
		return get.call(this, what, how);
	};
	// The answer to a withdrawal takes cookies away, and nobody reads the answer to a beacon.
	if (beam) navigator.sendBeacon = (url, body) => {
		if (url !== site + 't') return beam.call(navigator, url, body);
		ask(window, { method: 'POST', keepalive: true, body }).catch(() => {});
		return true;
	};
}
