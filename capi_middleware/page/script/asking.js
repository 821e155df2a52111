// Asks the site for what a page does not carry, and tells it what others cannot know.
// One that the site refuses for the moment rejects with its answer.
const call = (path, body) => send(site + path, { method: 'POST', keepalive: true, credentials: 'include', body })
	.then(answer => (answer.status === 429 || answer.status >= 500 ? Promise.reject(answer) : answer));
// Later and later, or when the site says; what has no answer may have arrived, which `twice` allows.
const again = (f, twice, wait = 1000) => f().catch(async refusal => {
	if (wait > 8000 || !(twice || refusal.status)) throw refusal;
	const told = refusal.headers?.get('Retry-After') || 0;
	await new Promise(done => setTimeout(done, Math.max(wait, Math.min(told, 60) * 1000 || 0)));
	return again(f, twice, wait * 2);
});
// A page that others may have got, too, knows neither its events nor this visitor's consent; those
// of one that was fetched ahead wait until it is shown (w), or a part of it (f); h has it already.
const post = about => {
	const body = json({ u: location.href, k: data.k, ...past, ...about });
	return again(() => call('/t', body)).then(answer => answer.json());
};
const tell = async about => !(data.c > 1) && (ready || post)({ y: data.y, ...about });
// A visitor may have gone on while the server, or a banner, was asked: its PageView is of where it was.
const elsewhere = at => (at === bare(location) ? 0 : at);
const question = (about, at = bare(location)) =>
	tell(about).then(given => given.x === data.x && fire(given.e, elsewhere(at)));
// The page's own calls wait meanwhile, for three seconds: they could be told no id.
const ask = nonce => {
	safe(forms)();
	safe(watch)();
	if (!ready) {
		on(window, 'pagehide', release);
		setTimeout(release, 3000);
	}
	return tell({ r: document.referrer, w: data.w, g: data.g, h: names(data.e) }).then(given => {
		Object.assign(data, given, { e: data.e.concat(given.e) });
		if (data.x && data.x !== 'limited') return;
		start(nonce);
		for (const call of early) window.fbq(...call);
	}).catch(noop).then(release);
};
