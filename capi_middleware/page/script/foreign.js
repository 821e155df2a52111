// Before the script, for a page that the site does not answer: makes its block of `text`, which
// is the same for all visitors, and the address that the script comes from.
text => {
	const me = document.currentScript;
	if (!me || !('capi' in me.dataset)) return;
	const block = document.createElement('template'); // what is text in it needs no trust
	block.dataset.c = '';
	block.textContent = text.replace('{', '{"u":"' + new URL('.', me.src).href.slice(0, -1) + '",');
	me.before(block);
}
