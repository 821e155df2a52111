// Hears what the page's own scripts ask the site for, and sees its address change.
const routers = () => {
	const { fetch: get, XMLHttpRequest: { prototype: request }, history: past } = window;
	const header = 'x-capi-events';
	// What scripts ask the site for, by address: did it bring events (true), or do some wait with it
	// until it is shown (their signed text)?
	const flights = {};
	let here = bare(location), moving;

	const hear = text => {
		const given = text && JSON.parse(text), events = given && given.e || given;
		if (events && events.length) more(events);
		return given && given.w || !!given;
	};

	const part = url => later(() => later(async () => {
		const waiting = await flights[url = bare(url)];
		if (!waiting || waiting === true) return;
		flights[url] = true;
		question(document.referrer, waiting, true).catch(noop);
	}));

	// A new address is a new page, whose events came with what a script asked for, or are asked for.
	const move = () => {
		clearTimeout(moving);
		moving = later(() => {
			const from = here, url = here = bare(location);
			if (url === from) return;
			Promise.resolve(flights[url]).then(brought => {
				delete flights[url];
				return brought === true || question(from, brought || '');
			}).catch(noop);
		});
	};

	window.fetch = function (what) {
		const answer = get.apply(this, arguments);
		safe(() => {
			const url = bare(what.url || what);
			if (!ours(url)) return;
			flights[url] = answer.then(r =>
				flights[bare(r.url)] = hear(ours(r.url) && r.headers.get(header)), noop);
		})();
		return answer;
	};
	const { send } = request;
	request.send = function () {
		on(this, 'load', () => {
			if (!ours(this.responseURL)) return;
			flights[bare(this.responseURL)] = hear(this.getResponseHeader(header));
		});
		return send.apply(this, arguments);
	};
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
