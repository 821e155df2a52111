// Fires what the page says in HTML, and what its scripts give to capi.track.
const forms = () => {
	const standard = RegExp('^(AddPaymentInfo|AddToCart|AddToWishlist|CompleteRegistration|Contact|'
		+ 'CustomizeProduct|Donate|FindLocation|InitiateCheckout|Lead|PageView|Purchase|Schedule|Search|'
		+ 'StartTrial|SubmitApplication|Subscribe|ViewContent)$');
	const track = (name, given) =>
		window.fbq(standard.test(name) ? 'track' : 'trackCustom', name, given || {});
	window.capi = window.capi || { track };
	const say = ({ dataset }) => dataset.capiEvent
		&& track(dataset.capiEvent, JSON.parse(dataset.capiData || '{}'));
	on(document, 'click', ({ target }) => {
		const element = target.closest('[data-capi-event]');
		if (!element.matches('form')) say(element);
	});

	// A form that is submitted is sent by the browser, unless a script stops it: then by that script,
	// which asks the site, or it did not pass the page's checks.
	let held;
	const sent = safe(form => {
		if (held === form) held = 0;
		say(form);
	});
	const asks = safe((to, method) => {
		const url = bare(to), path = url.split('?')[0], reads = /^(GET|HEAD)?$/i.test(method || '');
		if (url.startsWith(site + '/')) return;
		const own = path === bare(held.getAttribute('action') || '').split('?')[0];
		if (own || !reads && ours(url)) sent(held);
	});
	const checked = safe(e => e.defaultPrevented || held === e.target && sent(held));
	on(document, 'submit', e => {
		const form = held = e.target;
		setTimeout(checked, 0, e); // where a check stops it on its way
		setTimeout(() => { if (held === form) held = 0; }, 5000);
	});
	addEventListener('submit', checked); // after the page's own checks
	const { fetch: get } = window, request = XMLHttpRequest.prototype, { open } = request;
	const form = HTMLFormElement.prototype, { submit } = form;
	window.fetch = function (what, how) {
		if (held) asks(what.url || what, (how || what).method);
		return get.apply(this, arguments);
	};
	request.open = function (method, url) {
		if (held) asks(url, method);
		return open.apply(this, arguments);
	};
	form.submit = function () { // without an event
		sent(this);
		return submit.call(this);
	};
};
