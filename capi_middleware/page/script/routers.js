// Hears what the page's own scripts ask the site for, and sees its address change.
// What they ask for, by address: the names of the events that it brought (h), and the signed text of
// those that wait with it until it is shown (w).
const flights = {};
const hear = (to, header) => {
	if (!ours(to)) return;
	const at = bare(to), given = JSON.parse(header('x-capi-events') || '[]');
	const events = given.e || (given.w ? [] : given);
	if (events.length) fire(events, at);
	if (given.g) question({ r: document.referrer, g: given.g }).catch(noop);
	return flights[at] = { h: given.h || names(events), w: given.w };
};
// A page whose policy hides its address from what it calls tells it to its own site.
const hiding = /^(no-referrer|never|(strict-)?origin)$/i;
const tells = url => url.startsWith(location.origin + '/')
	&& (data.r || hiding.test((document.querySelector('meta[name=referrer]') || {}).content));
const named = safe((what, how) => {
	if (how instanceof Request || !tells(bare(what.url || what))) return;
	const headers = new Headers(how && how.headers || what.headers);
	headers.set('X-Capi-Page', bare(location));
	return [what, { ...how, headers }];
});
const requests = () => {
	before(window, 'fetch', (go, what, how) => {
		const answer = go(...named(what, how) || []);
		safe(() => {
			const url = bare(what.url || what);
			asks(url, (how || what).method);
			if ((fbq || ready) && ours(url)) flights[url] = answer.then(r => hear(r.url, name => r.headers.get(name)), noop);
		})();
		return answer;
	});
	before(XMLHttpRequest.prototype, 'open', function (go, method, to) {
		const url = bare(to);
		asks(url, method);
		const header = name => (RegExp('^' + name + ': (.*)', 'im')
			.exec(this.getAllResponseHeaders()) || [])[1]; // one that is hidden would be a line in the console
		const loaded = new Promise(done => this.addEventListener('loadend', () =>
			done((fbq || ready) && safe(hear)(this.responseURL, header)), { once: true }));
		// A synchronous one has no start.
		this.addEventListener('loadstart', () => { if (ours(url)) flights[url] = loaded; }, { once: true });
		go();
		safe(() => tells(url) && this.setRequestHeader('X-Capi-Page', bare(location)))();
		return true;
	});
};

let here;
const routers = () => {
	if (here) return; // while an answer was waited for
	let moving, settled;
	here = bare(location);
	const part = url => later(() => later(async () => {
		const brought = await flights[bare(url)] || {}, { w } = brought;
		brought.w = '';
		if (w) question({ r: document.referrer, w, f: true }).catch(noop);
	}));
	// A new address is a new page: what did not come with what a script asked for is asked for.
	const move = () => {
		clearTimeout(moving);
		asked = asked || new Promise(done => { settled = () => { asked = 0; done(); }; });
		moving = later(() => {
			const from = here, url = here = bare(location);
			if (url === from) return settled();
			Promise.resolve(flights[url]).then(brought => {
				delete flights[url];
				const { h = [], w } = brought || {};
				const has = ids.every(isViewed) ? h.concat('PageView') : h; // maybe the page's own
				return h.includes('PageView') || question({ r: from, w, h: has });
			}).catch(noop).then(settled);
		});
	};
	// Of routers that kept pushState for themselves, and of navigate() and intercept().
	if (window.navigation) on(navigation, 'currententrychange', move);
	else setInterval(() => here === bare(location) || move(), 500);
	before(history, 'pushState', move);
	before(history, 'replaceState', move);
	on(window, 'popstate', move);
	// A part of a page may be shown without a new address.
	on(document, 'up:fragment:loaded', e => e.revalidating || part(e.response.url));
	on(document, 'htmx:afterSwap', e => part(e.detail.xhr.responseURL));
};
