// Fires what the page says in HTML, and what its scripts give to capi.track.
const forms = () => {
	const standard = RegExp('^(AddPaymentInfo|AddToCart|AddToWishlist|CompleteRegistration|Contact|'
		+ 'CustomizeProduct|Donate|FindLocation|InitiateCheckout|Lead|PageView|Purchase|Schedule|Search|'
		+ 'StartTrial|SubmitApplication|Subscribe|ViewContent)$');
	const track = (name, given) =>
		window.fbq(standard.test(name) ? 'track' : 'trackCustom', name, given || {});
	window.capi = window.capi || { track };
	const act = ({ type, target }) => {
		const element = target.closest('[data-capi-event]');
		if (element && (element.matches('form') === (type === 'submit')))
			track(element.dataset.capiEvent, JSON.parse(element.dataset.capiData || '{}'));
	};
	on(document, 'click', act);
	on(document, 'submit', act);
};
