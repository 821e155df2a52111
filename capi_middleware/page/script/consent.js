// Holds what happens until the visitor answers, and stops it when the answer is taken back.
// Part of the script only where the site has a rule of consent.
const consent = run => {
	const [needs, vendor, minutes] = data.q; // what each banner must allow, by name
	// '' is no answer yet; '?' a page of a cache, which asks the server first.
	let state = data.x === 'unanswered' ? '' : data.x || (data.a ? '?' : 'granted');
	let said, opened, leads, held = !state, sleepers = [];
	const mayGo = () => /^[?gl]/.test(state);
	const change = () => new Promise(done => sleepers.push(done));
	const wake = () => { for (const done of sleepers.splice(0)) done(); };
	const never = new Promise(noop);
	const ago = at => Math.round((Date.now() - at) / 1000) || undefined;
	const isOver = at => ago(at) > minutes * 60;
	const kept = []; // calls of the page before the library is there: what, when, where

	// Each question waits here for a yes, with the address that it is about, which may have a click id.
	// The first one begins the page, and makes its cookies: the others follow it.
	ready = async about => {
		const asked = { u: location.href, ...about }, at = Date.now(), begins = !leads;
		leads = true;
		const told = more => post({ ...asked, x: said, n: said && !(begins && held) || undefined, ...more });
		const drop = () => Object.assign(asked, { g: undefined, w: undefined, f: true });
		for (;;) {
			while (!mayGo()) {
				if (state === 'denied' && !asked.f) {
					// Counts what is dropped; of the page's mark (y) the first one tells: it is one page.
					if (asked.g || begins) told(begins ? {} : { y: undefined }).catch(noop);
					drop();
				}
				if (state === 'denied' && !begins) return never;
				await change();
			}
			if (!begins && !opened) {
				await change();
				continue;
			}
			if (isOver(at)) {
				if (!begins) return never;
				drop();
			}
			if (said) await new Promise(later); // a banner may tell the page before it writes its cookie
			if (!mayGo()) continue;
			const before = state, given = await told({ t: ago(at) });
			if (!/^(unanswered|denied)$/.test(given.x)) {
				data.x = given.x;
				if (begins) data.at = elsewhere(bare(asked.u));
				if (before === state) state = given.x || 'granted';
				return given;
			}
			if (given.x === 'denied') drop();
			else held = true;
			if (before === state) [state, said] = [given.x === 'denied' ? given.x : ''];
		}
	};

	const forget = () => {
		for (let at = location.hostname; at; at = at.includes('.') ? at.replace(/^[^.]+\./, '') : '')
			for (const name of ['_fbp', '_fbc']) for (const where of ['', '; domain=' + at])
				document.cookie = `${name}=; Max-Age=0; path=/${where}`;
		for (const memory of [localStorage, sessionStorage])
			for (const name of ['_capi', '_capi_left', '_capi_pages']) memory.removeItem(name);
	};
	const withdraw = () => {
		const { queue } = fbq;
		safe(fbq)('consent', 'revoke');
		// Of a library that is not there yet.
		if (queue) queue.splice(0, queue.length, ...[...queue].filter(([method]) => !/^track/.test(method)));
		for (const c of copies) if (!c.left) Object.assign(c, { left: true, is: 'consent' });
		safe(forget)();
		later(forget);
	};
	const answer = word => {
		if (word === state || !/^(granted|denied|limited)$/.test(word)) return;
		const before = state;
		state = said = word;
		if (word === 'denied' || before === 'denied') kept.length = waiting.length = 0;
		if (opened) {
			silent = word === 'denied';
			if (silent) withdraw();
			else {
				data.x = word === 'limited' ? word : undefined;
				if (word === 'limited') safe(fbq)('dataProcessingOptions', ['LDU'], 0, 0);
				else if (before === 'limited') safe(fbq)('dataProcessingOptions', []);
				if (before === 'denied') safe(fbq)('consent', 'grant');
			}
			if (!asImage) post({ f: true, x: said }).catch(noop);
		}
		wake();
	};

	// The strictest of what banners say, as the server reads their cookies.
	const heardOf = {};
	const listenTo = name => {
		const say = yes => {
			heardOf[name] = !!yes;
			answer(Object.values(heardOf).every(Boolean) ? 'granted' : 'denied');
		};
		let patience = 1200;
		const attach = () => safe(banners[name])(say, needs[name], vendor) || --patience && setTimeout(attach, 250);
		attach();
	};
	window.capi.consent = answer;
	for (const name in needs) listenTo(name);
	// A site's own snippet revokes before an answer, too: that is none.
	const listenToCalls = () => {
		const own = adopt;
		adopt = (call, early) => {
			if (call[0] === 'consent' && (call[1] === 'grant' || mayGo() && !early))
				answer(call[1] === 'grant' ? 'granted' : 'denied');
			return silent && /^track/.test(call[0]) ? [] : own(call, early);
		};
	};

	early.push = call => kept.push([call, Date.now(), location.href]);
	listenToCalls();
	ids = data.p.map(p => p.id);
	if (!mayGo()) safe(routers)();
	Promise.resolve(run()).then(() => {
		opened = !!fbq;
		if (!opened) return;
		listenToCalls(); // mirror() has its own
		for (const [call, at, u] of kept.splice(0)) if (!isOver(at)) {
			past = { u, t: ago(at) };
			window.fbq(...call);
		}
		past = undefined;
		wake();
	});
};
