// A stand-in for Meta's fbevents.js, for tests: what the pixel does as seen from the page and
// from the network, written from observation. It talks to the host that it was loaded from.
(function () {
  'use strict';
  const HOST = new URL(document.currentScript.src).origin;
  const MAX_GET = 2048; // characters; longer events travel as a form POST
  const DAYS_90 = 7776000; // seconds

  const fbq = window.fbq;
  if (!fbq || fbq.instance) return;
  const locks = {};
  const pixels = [];
  const plugins = {}; // pixel id -> names that its config switched on
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
    } else if (method === 'dataProcessingOptions') options = args;
  }

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

  async function hash(pixel) {
    lock('identity:' + pixel.id);
    for (const [key, raw] of Object.entries(pixel.userData)) {
      const clean = String(raw).trim().toLowerCase();
      const value = key === 'ph' ? clean.replace(/\D/g, '') : clean;
      pixel.hashed.push([key, /^[0-9a-f]{64}$/.test(value) ? value : await sha256(value)]);
    }
    unlock('identity:' + pixel.id);
  }

  async function sha256(text) {
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
    return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, '0')).join('');
  }

  // --- events --------------------------------------------------------------------------------

  function fire(targets, [name, customData, extra], everyPixel) {
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
      send(parameters(pixel, name, customData || {}, eventId(extra), count, everyPixel));
    }
  }

  function eventId(extra) {
    const given = extra && (extra.eventID !== undefined ? extra.eventID : extra.event_id);
    return given && typeof given === 'object' ? given.eventID : given;
  }

  function parameters(pixel, name, customData, eid, count, everyPixel) {
    const list = [
      ['id', pixel.id], ['ev', name], ['dl', location.href], ['rl', document.referrer],
      ['if', window !== window.top], ['ts', Date.now()],
    ];
    for (const [key, value] of Object.entries(customData)) {
      if (value === null || value === undefined) continue;
      list.push(['cd[' + key + ']', typeof value === 'object' ? JSON.stringify(value) : value]);
    }
    list.push(['sw', screen.width], ['sh', screen.height]);
    for (const [key, value] of pixel.hashed) list.push(['ud[' + key + ']', value]);
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
    if (!everyPixel) list.push(['tm', 1]);
    return list;
  }

  function send(list) {
    const query = (method) =>
      list.concat([['rqm', method]]).map((pair) => pair.map(encodeURIComponent).join('=')).join('&');
    const url = HOST + '/tr/?' + query('GET');
    const short = url.length < MAX_GET;
    if (short) new Image().src = url;
    else post(list.concat([['rqm', 'formPOST']]));
    const payload = new Map(list.map(([key, value]) => [key, String(value)]));
    firedListeners.forEach((listener) => listener(short ? 'GET' : 'POST', payload));
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

  // --- automatic PageViews: never with an event id -------------------------------------------

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
