// A stand-in for Meta's fbevents.js, for tests: what the pixel does as seen from the page and
// from the network, written from observation. It talks to the host that it was loaded from.
(function () {
  'use strict';
  const HOST = new URL(document.currentScript.src).origin;
  const MAX_GET = 2048; // characters; longer events are posted
  const MAX_KEYS = 5; // of advanced matching: as long, in the real one, on any page
  const CHROME = / Chrome\//.test(navigator.userAgent); // posts by a form, the others by beacon
  const DAYS_90 = 7776000; // seconds

  const fbq = window.fbq;
  if (!fbq || fbq.instance) return;
  const locks = {};
  const pixels = [];
  const plugins = {}; // pixel id -> names that its config switched on
  const manual = []; // ids of the pixels without automatic events
  const firedListeners = [];
  const started = Date.now();
  let options = null; // data processing options
  let lastUrl = location.href;

  const instance = {
    locks,
    pixelsByID: {},
    configLoaded: (id) => unlock('config:' + id),
    optIn: (id, plugin) => (plugins[id] = plugins[id] || []).push(plugin),
  };

  // --- the queue -----------------------------------------------------------------------------

  function lock(name) {
    locks[name] = true;
  }

  function unlock(name) {
    delete locks[name];
    drain();
  }

  function drain() {
    while (fbq.queue.length && !Object.keys(locks).length) run(...fbq.queue.shift());
  }

  function callMethod(...call) {
    if (call[0] === 'consent') call[1] === 'revoke' ? lock('consent') : unlock('consent');
    else {
      fbq.queue.push(call);
      drain();
    }
  }

  function run(method, ...args) {
    const every = () => pixels.slice();
    const one = () => pixels.filter((pixel) => pixel.id === String(args[0]));
    if (method === 'init') init(String(args[0]), args[1]);
    else if (method === 'track' || method === 'trackCustom') fire(every(), args, true);
    else if (method === 'trackSingle' || method === 'trackSingleCustom') {
      if (!one().length) console.warn('[stand-in pixel] not initialised: ' + args[0]);
      fire(one(), args.slice(1), false);
    } else if (method === 'set' && args[0] === 'autoConfig' && !args[1]) {
      manual.push(String(args[2]));
    } else if (method === 'dataProcessingOptions') options = args;
  }

  const CLEAN = {
    em: (text) => (text.includes('@') ? text : text + '@gmail.com'),
    ph: (text) => text.replace(/\D/g, ''),
    ct: (text) => text.replace(/[^\p{L}]/gu, ''),
    zp: (text) => text.split('-')[0],
  };

  function init(id, userData) {
    if (instance.pixelsByID[id]) return console.warn('[stand-in pixel] Duplicate Pixel ID: ' + id);
    const pixel = { id, userData: userData || {}, hashed: [], eventCount: 0, pageViewed: false };
    pixels.push((instance.pixelsByID[id] = pixel));
    lock('config:' + id);
    if (userData) hash(pixel);
    load(HOST + '/signals/config/' + id + '?v=' + fbq.version + '&r=stable&domain=' +
      encodeURIComponent(location.hostname));
  }

  function load(src) {
    const script = document.createElement('script');
    script.async = true;
    script.src = src;
    document.head.appendChild(script);
  }

  // As given, with masks of what the page gave and of what was made of it; then the hashes.
  async function hash(pixel) {
    lock('identity:' + pixel.id);
    const mask = (text) => text.replace(/\p{Lu}/gu, '^').replace(/[\p{L}\d]/gu, '*');
    const groups = { cud: [], ncud: [], ud: [], aud: [] };
    for (const [key, raw] of Object.entries(pixel.userData)) {
      const given = String(raw).trim();
      const clean = (CLEAN[key] || ((text) => text))(given.toLowerCase());
      const value = /^[0-9a-f]{64}$/i.test(given) ? given.toLowerCase() : await sha256(clean);
      const made = { cud: mask(given), ncud: mask(clean), ud: value, aud: value };
      for (const name in groups) groups[name].push([name + '[' + key + ']', made[name]]);
    }
    pixel.hashed = Object.values(groups).flat();
    unlock('identity:' + pixel.id);
  }

  async function sha256(text) {
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
    return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, '0')).join('');
  }

  // --- events --------------------------------------------------------------------------------

  function fire(targets, [name, customData, extra], everyPixel, automatic) {
    for (const pixel of targets) {
      // Only calls to every pixel are checked and registered: one PageView a page.
      if (name === 'PageView' && everyPixel) {
        if (pixel.pageViewed && !fbq.allowDuplicatePageViews) continue;
        pixel.pageViewed = true;
      }
      const on = plugins[pixel.id] || [];
      if (on.includes('cookie')) writeCookies();
      const count = pixel.eventCount++;
      const bot = /bot|crawl|spider|headless/i.test(navigator.userAgent);
      if (on.includes('botblocking') && bot) continue;
      let eid = eventId(extra);
      if (on.includes('openbridge')) {
        if (eid === null || eid === undefined) eid = 'ob3_plugin-set_' + hex(32);
        bridge(pixel, name, customData || {}, eid);
      }
      const how = automatic ? [['tm', 3], ['es', 'automatic']] : everyPixel ? [] : [['tm', 1]];
      send(parameters(pixel, name, customData || {}, eid, count, how), automatic && !CHROME);
    }
  }

  function hex(bytes) {
    const random = crypto.getRandomValues(new Uint8Array(bytes));
    return Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  // OpenBridge: one more copy, for the owner's own gateway.
  function bridge(pixel, name, customData, eid) {
    const body = JSON.stringify({ id: pixel.id, ev: name, cd: customData, eid });
    fetch(HOST + '/events?cee=no', { method: 'POST', mode: 'no-cors', body }).catch(() => {});
  }

  function eventId(extra) {
    const given = extra && (extra.eventID !== undefined ? extra.eventID : extra.event_id);
    return given && typeof given === 'object' ? given.eventID : given;
  }

  function parameters(pixel, name, customData, eid, count, how) {
    const list = [
      ['id', pixel.id], ['ev', name], ['dl', location.href], ['rl', document.referrer],
      ['if', window !== window.top], ['ts', Date.now()],
    ];
    for (const [key, value] of Object.entries(customData)) {
      if (value === null || value === undefined) continue;
      list.push(['cd[' + key + ']', typeof value === 'object' ? JSON.stringify(value) : value]);
    }
    list.push(['sw', screen.width], ['sh', screen.height]);
    list.push(...pixel.hashed);
    list.push(['v', fbq.version], ['r', 'stable'], ['ec', count], ['o', 4126]);
    for (const name of ['fbc', 'fbp']) {
      const value = cookie('_' + name);
      if (value) list.push([name, value]);
    }
    list.push(['ler', 'empty'], ['cdl', 'API_unavailable'], ['it', started], ['coo', false]);
    if (options) {
      const [chosen, country, state] = options;
      list.push(['dpo', chosen.join(',')]);
      if (chosen.length) list.push(['dpoco', country || 0], ['dpost', state || 0]);
    }
    if (eid !== null && eid !== undefined) list.push(['eid', eid]);
    list.push(...how);
    for (let n = 0; n < 7; n++) list.push(['expv2[' + n + ']', 'pl' + n]);
    return list;
  }

  function send(list, byBeacon) {
    const as = (method) => list.concat([['rqm', method]]);
    const query = as('GET').map((pair) => pair.map(encodeURIComponent).join('=')).join('&');
    const url = HOST + '/tr/?' + query;
    const keys = list.filter(([name]) => name.startsWith('ud[')).length;
    const way = !byBeacon && keys < MAX_KEYS && url.length < MAX_GET ? 'GET' : CHROME ? 'POST' : 'BEACON';
    if (way === 'GET') new Image().src = url;
    else if (way === 'POST') post(as('formPOST'));
    else {
      const form = new FormData();
      as('SB').forEach(([name, value]) => form.append(name, value));
      navigator.sendBeacon(HOST + '/tr/', form);
    }
    const payload = new Map(list.map(([key, value]) => [key, String(value)]));
    firedListeners.forEach((listener) => listener(way, payload));
  }

  function post(list) {
    const frame = document.createElement('iframe');
    const form = document.createElement('form');
    frame.name = form.target = 'fb' + Math.random().toString().slice(2);
    form.method = 'POST';
    form.action = HOST + '/tr/';
    form.acceptCharset = 'utf-8';
    form.hidden = frame.hidden = true;
    for (const [name, value] of list) {
      const input = document.createElement('input');
      input.name = name;
      input.value = value;
      form.appendChild(input);
    }
    document.body.append(frame, form);
    frame.addEventListener('load', () => { frame.remove(); form.remove(); });
    form.submit();
  }

  // --- cookies -------------------------------------------------------------------------------

  function cookie(name) {
    const found = document.cookie.split('; ').find((pair) => pair.startsWith(name + '='));
    return found && found.slice(name.length + 1);
  }

  function writeCookies() {
    const fbclid = new URL(location.href).searchParams.get('fbclid');
    const click = fbclid && fbclid.replace(/\./g, '__DOT__');
    const digits = () => Math.random().toString().slice(2, 11);
    const stored = cookie('_fbc');
    if (click && !(stored && stored.endsWith('.' + click))) keep('_fbc', click);
    else if (stored) keep('_fbc', null, stored);
    keep('_fbp', digits() + digits(), cookie('_fbp'));
  }

  // The widest domain that the browser takes is the registrable domain.
  function keep(name, payload, stored) {
    const labels = location.hostname.split('.');
    for (let n = 0; n < labels.length; n++) {
      const value = stored || ['fb', n, Date.now(), payload].join('.');
      const domain = labels.slice(-1 - n).join('.');
      const tail = ';domain=' + domain + ';path=/;SameSite=Lax;max-age=';
      document.cookie = '_fbtest=1' + tail + DAYS_90;
      if (!cookie('_fbtest')) continue;
      document.cookie = '_fbtest=' + tail + 0;
      document.cookie = name + '=' + value + tail + DAYS_90;
      return;
    }
  }

  // --- automatic events: never with an event id ----------------------------------------------

  function clicked(event) {
    const button = event.target.closest('button, input[type=submit], [role=button]');
    if (!button) return;
    const heard = pixels.filter(({ id }) =>
      (plugins[id] || []).includes('inferredevents') && !manual.includes(id));
    const data = { buttonText: button.innerText || button.value };
    fire(heard, ['SubscribedButtonClick', data], true, true);
  }
  addEventListener('click', clicked, true);

  function pageViewed() {
    pixels.forEach((pixel) => { pixel.pageViewed = false; });
    callMethod('track', 'PageView');
  }

  function moved() {
    if (location.href === lastUrl) return;
    lastUrl = location.href;
    if (!fbq.disablePushState) pageViewed();
  }

  for (const name of ['pushState', 'replaceState']) {
    const original = history[name];
    history[name] = function () {
      original.apply(this, arguments);
      moved();
    };
  }
  addEventListener('popstate', moved);
  addEventListener('pageshow', (event) => { if (event.persisted) pageViewed(); });

  // --- take over -----------------------------------------------------------------------------

  fbq.version = '2.9.999';
  fbq.instance = instance;
  fbq.registerPlugin = (id, entry) => entry.plugin(fbq, instance, {});
  fbq.getState = () => ({
    pixels: pixels.map(({ id, userData, eventCount }) => ({ id, userData, eventCount })),
  });
  fbq.getFbeventsModules = (name) =>
    name === 'SignalsFBEventsFiredEvent' && { listen: (listener) => firedListeners.push(listener) };
  const early = fbq.queue.splice(0);
  fbq.callMethod = callMethod;
  early.forEach((call) => callMethod(...call));
})();
