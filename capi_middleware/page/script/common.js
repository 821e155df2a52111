// What every part of the script uses. The parts share one scope: `make script` joins them.
const safe = f => function () { try { return f.apply(this, arguments); } catch (_) {} };
const later = f => setTimeout(safe(f), 60); // by then CSP reports and timings are in
const on = (target, type, f) => target.addEventListener(type, safe(f), true);
const noop = () => {};
// Puts `f` before a method of the browser's, which runs unless f has an answer.
const before = safe((object, name, f) => {
	const method = object[name];
	if (method) object[name] = function (...call) {
		const go = (...other) => method.apply(this, other.length ? other : call);
		return safe(f).call(this, go, ...call) || go();
	};
});
const bare = url => new URL(url, document.baseURI).href.replace(/#.*|[?&]_pjax=[^&#]*/g, '');
const ours = url => [location, site].some(one => url.startsWith(new URL('/', one).href));
const names = events => events.length ? events.map(e => e.n) : undefined;
// Prototype.js makes texts of lists: its toJSON() rests meanwhile.
const json = value => {
	const off = [Array, String, Number, Object].map(({ prototype: p }) => [p, p.toJSON]);
	for (const [p] of off) delete p.toJSON;
	try { return JSON.stringify(value); } finally { for (const [p, given] of off) if (given) p.toJSON = given; }
};
const pixel = /\/tr\/?\?/;
// i event_id, n name, p pixel, b without event_id, v value and currency; is outcome, said reported
const copies = [];
// An event_id under another name is another event, to Meta as well.
const same = (c, id, name) => c.i === id && c.n === name;
const wrapped = new WeakMap(); // our Proxy of the page's function, and that function
const viewed = {}; // the address of each pixel's last PageView
const isViewed = p => viewed[p] === bare(location);
// ready: holds questions until consent; past: of what a call is that was held; silent: after a no;
// remember: notes this document, if it is none of a cache's; home: its address
let asked, heard, data, ids, fbq, sites, own, site, library, ready, past, silent, remember, home;
