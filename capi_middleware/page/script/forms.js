// Fires what the page says in HTML, and what its scripts give to capi.track.
const early = []; // while the page asks for its events
// What had no time to leave with the page before this one; a PageView is of its own page alone.
const left = safe(() => {
	const events = JSON.parse(sessionStorage._capi_left || '[]');
	sessionStorage.removeItem('_capi_left');
	return events;
});
const leftover = safe(() => {
	const events = copies.filter(c => !c.left && c.is === 'left_early' && c.n !== 'PageView')
		.map(({ e, p }) => ({ ...e, p: [p] }));
	if (events.length) sessionStorage._capi_left = json((left() || []).concat(events));
});
let held; // the form that is submitted
// `make script` puts Meta's names in.
const track = (name, given) => {
	const call = ['STANDARD_EVENTS'.split(' ').includes(name) ? 'track' : 'trackCustom', name, given || {}];
	fbq ? window.fbq(...call) : early.push(call);
};
const say = ({ dataset: { capiEvent, capiData } }) => capiEvent && track(capiEvent, JSON.parse(capiData || '{}'));
const sent = safe(form => {
	if (held === form) held = 0;
	say(form);
});
// A form that is submitted is sent by the browser, unless a script stops it: then by that script,
// which asks the site, or it did not pass the page's checks.
const asks = safe((url, method) => {
	if (!held || url.startsWith(site + '/')) return;
	const its = url.split('?')[0] === bare(held.getAttribute('action') || '').split('?')[0];
	if (its || !/^(GET|HEAD)?$/i.test(method || '') && ours(url)) sent(held);
});
const forms = () => {
	// What was clicked may be in the open shadow root of an element, whose submits stay inside.
	const roots = new WeakSet();
	const enter = path => path.forEach(root => root instanceof ShadowRoot && submits(root, root));
	let clicked;
	const click = e => {
		const path = e.composedPath(), opens = path.some(({ href }) => href);
		const element = path.find(({ dataset }) => dataset && 'capiEvent' in dataset);
		enter(path);
		// The middle button opens links; the click on a label comes a second time, for its field.
		if (e.button > 1 || e.button && !opens || !element || element === clicked) return;
		clicked = element;
		setTimeout(() => { clicked = 0; });
		if (!element.matches('form')) say(element);
	};
	for (const type of ['click', 'auxclick']) on(document, type, click);
	on(document, 'focusin', e => enter(e.composedPath()));

	const checked = safe(e => e.defaultPrevented || held === e.target && sent(held));
	const submits = (root, end) => {
		if (roots.has(root)) return;
		roots.add(root);
		on(root, 'submit', e => {
			const form = held = e.target;
			setTimeout(checked, 0, e); // where a check stops it on its way
			setTimeout(() => { if (held === form) held = 0; }, 5000);
		});
		end.addEventListener('submit', checked); // after the page's own checks
	};
	submits(document, window);
	requests();
};
