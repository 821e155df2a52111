// Hears what the page's own scripts ask the site for, and sees its address change.
const routers = () => {
	const { fetch: get, XMLHttpRequest: { prototype: request }, history: past } = window;
	const header = 'x-capi-events';
	// What scripts ask the site for, by address: the names of the events that it brought (h), and
	// the signed text of those that wait with it until it is shown (w).
	const flights = {};
	let here = bare(location), moving, settled;

	const hear = (text, at) => {
		const given = JSON.parse(text || '[]'), events = given.e || (given.w ? [] : given);
		if (events.length) fire(events, at);
		return { h: names(events), w: given.w };
	};

	const part = url => later(() => later(async () => {
		const brought = await flights[url = bare(url)], w = brought && brought.w;
		if (!w) return;
		brought.w = '';
		question({ r: document.referrer, w, f: true }).catch(noop);
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

	window.fetch = function (what) {
		const answer = get.apply(this, arguments);
		safe(() => {
			const url = bare(what.url || what);
			if (!ours(url)) return;
			flights[url] = answer.then(r =>
				flights[bare(r.url)] = hear(ours(r.url) && r.headers.get(header), bare(r.url)), noop);
		})();
		return answer;
	};
	const { open, send } = request, addresses = new WeakMap();
	request.open = function (method, url) {
		safe(() => addresses.set(this, bare(url)))();
		return open.apply(this, arguments);
	};
	request.send = function () {
		const url = addresses.get(this);
		if (url && ours(url)) flights[url] = new Promise(done => on(this, 'loadend', () => {
			const at = this.responseURL;
			done(ours(at) && (flights[bare(at)] = hear(this.getResponseHeader(header), bare(at))));
		}));
		return send.apply(this, arguments);
	};
	// Of routers that kept pushState for themselves, and of navigate() and intercept().
	if (window.navigation) on(navigation, 'currententrychange', move);
	else setInterval(() => here === bare(location) || move(), 500);
	for (const name of ['pushState', 'replaceState']) {
		const change = past[name];
		past[name] = function () {
			const answer = change.apply(this, arguments);
			move();
			return answer;
		};
	}
	on(window, 'popstate', move);
	// A part of a page may be shown without a new address.
	on(document, 'up:fragment:loaded', e => e.revalidating || part(e.response.url));
	on(document, 'htmx:afterSwap', e => part(e.detail.xhr.responseURL));
};
