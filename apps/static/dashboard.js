/* The live page: history by REST, everything after it by the websocket. Uses TradingView's lightweight-charts, served beside this file. */
(() => {
  'use strict';
  if (window.__cryptoRt) return;
  const $ = (id) => document.getElementById('crt-' + id);
  const state = (window.__cryptoRt = {
    symbol: null, symbols: [], interval: 60, bars: 0, lastBar: null, updates: 0, seq: null, epoch: null,
    connection: 'connecting', reconnects: 0, gaps: 0, prediction: null, pulse: null, ready: false,
    drop: () => socket && socket.close(), // for trying out what a lost connection does
  });
  let candles = new Map(); // start_ms -> {candle, final}
  let predictions = new Map(); // start_ms -> prediction
  let chart, price, volume, future, markers, band, decay, socket, newsTimer, historyTimer, retry = 0, retryTimer, heardAt = 0, digits = 2, buffer = null, points = 0;

  // --- words and numbers
  const store = { get: (k) => { try { return localStorage.getItem(k); } catch { return null; } }, set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* private window */ } } };
  const number = (v, d) => Number(v).toLocaleString('en-US', { minimumFractionDigits: d, maximumFractionDigits: d });
  const money = (v) => (v === null || v === undefined || !isFinite(v) ? '–' : number(v, digits));
  const amount = (v) => { const x = Number(v); return x >= 1000 ? number(x, 0) : x >= 1 ? number(x, 3) : x === 0 ? '0' : x.toPrecision(4); };
  const pad = (n) => String(n).padStart(2, '0');
  const clock = (ms, seconds = true) => { const d = new Date(ms); return `${pad(d.getUTCHours())}:${pad(d.getUTCMinutes())}${seconds ? ':' + pad(d.getUTCSeconds()) : ''}`; };
  const day = (ms) => new Date(ms).toISOString().slice(0, 10);
  const span = (s) => (s % 3600 === 0 ? `${s / 3600} h` : s % 60 === 0 ? `${s / 60} min` : `${s} s`);
  const signed = (v, d, unit) => `${v > 0 ? '+' : v < 0 ? '−' : '±'}${number(Math.abs(v), d)} ${unit}`;
  const text = (id, value) => { const e = $(id); if (e && e.textContent !== value) e.textContent = value; };
  const tone = (id, name) => { const e = $(id); if (e && e.dataset.tone !== name) e.dataset.tone = name; };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const nowMs = () => (state.pulse && state.pulse.source === 'live' ? Date.now() : Math.max(state.pulse ? state.pulse.clock_ms : 0, state.eventMs || 0));

  function list(id, rows) {
    const box = $(id);
    if (!box) return;
    box.replaceChildren(...rows.flatMap(([name, value, kind]) => {
      const dt = document.createElement('dt'), dd = document.createElement('dd');
      dt.textContent = name;
      if (kind === 'code') { const code = document.createElement('code'); code.textContent = value; dd.append(code); } else { dd.textContent = value; if (kind) dd.className = kind; }
      return [dt, dd];
    }));
  }

  // --- theme
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  function theme(name) {
    document.documentElement.dataset.crtTheme = name;
    document.documentElement.classList.toggle('dark', name === 'dark');
    if (document.body) document.body.classList.toggle('dark', name === 'dark');
    text('theme', name === 'dark' ? '☀' : '☾');
    if (chart) { paintChart(); redraw(); drawNews(); }
  }
  const wantedTheme = () => store.get('crt-theme') || (system.matches ? 'dark' : 'light');
  system.addEventListener('change', () => theme(wantedTheme()));
  theme(wantedTheme());

  // --- the forecast, drawn under the candles
  class Band {
    constructor() { this.past = []; this.now = null; }
    attached({ chart: c, series, requestUpdate }) { this.chart = c; this.series = series; this.request = requestUpdate; }
    detached() { this.request = null; }
    set(past, now) { this.past = past; this.now = now; if (this.request) this.request(); }
    updateAllViews() { /* coordinates are taken while drawing */ }
    autoscaleInfo() { return this.now ? { priceRange: { minValue: this.now.lower, maxValue: this.now.upper } } : null; }
    paneViews() { return [{ zOrder: () => 'bottom', renderer: () => ({ draw: (target) => target.useBitmapCoordinateSpace((s) => this.draw(s)) }) }]; }
    draw({ context: g, horizontalPixelRatio: h, verticalPixelRatio: v }) {
      const scale = this.chart.timeScale();
      const x = (ms) => { const c = scale.timeToCoordinate(ms / 1000); return c === null ? null : c * h; };
      const y = (p) => { const c = this.series.priceToCoordinate(p); return c === null ? null : c * v; };
      const color = css('--c-band'), fill = css('--c-band-fill');
      g.save();
      let run = [];
      const flush = () => {
        if (run.length > 1) {
          g.beginPath();
          run.forEach((p, i) => (i ? g.lineTo(p.x, p.top) : g.moveTo(p.x, p.top)));
          [...run].reverse().forEach((p) => g.lineTo(p.x, p.bottom));
          g.closePath(); g.fillStyle = fill; g.fill();
        }
        run = [];
      };
      let before = 0;
      for (const p of this.past) {
        const point = { x: x(p.at), top: y(p.upper), bottom: y(p.lower) };
        if (p.at - before > 3 * state.interval * 1000) flush();
        before = p.at;
        if (point.x === null || point.top === null || point.bottom === null) flush(); else run.push(point);
      }
      flush();
      const n = this.now, a = n && x(n.from), b = n && x(n.at);
      if (n && a !== null && b !== null) {
        const y0 = y(n.last), top = y(n.upper), bottom = y(n.lower), mean = y(n.expected), cap = 4 * h;
        g.beginPath(); g.moveTo(a, y0); g.lineTo(b, top); g.lineTo(b, bottom); g.closePath(); g.fillStyle = fill; g.fill(); g.fill();
        g.strokeStyle = color; g.lineWidth = Math.max(1, Math.round(h));
        g.setLineDash([4 * h, 3 * h]);
        g.beginPath(); g.moveTo(a, y0); g.lineTo(b, mean); g.stroke();
        g.setLineDash([]); g.globalAlpha = n.faded ? 0.4 : 1;
        g.beginPath(); g.moveTo(b, top); g.lineTo(b, bottom); g.moveTo(b - cap, top); g.lineTo(b + cap, top); g.moveTo(b - cap, bottom); g.lineTo(b + cap, bottom); g.stroke();
        g.beginPath(); g.arc(b, mean, 3 * h, 0, 7); g.fillStyle = color; g.fill();
      }
      g.restore();
    }
  }

  // --- the chart
  function paintChart() {
    chart.applyOptions({
      layout: { background: { color: css('--c-card') }, textColor: css('--c-soft'), attributionLogo: true, fontFamily: css('--f-text'), fontSize: 11 },
      grid: { vertLines: { color: css('--c-track') }, horzLines: { color: css('--c-track') } },
      rightPriceScale: { borderColor: css('--c-line') }, timeScale: { borderColor: css('--c-line') },
      crosshair: { vertLine: { color: css('--c-faint'), labelBackgroundColor: css('--c-soft') }, horzLine: { color: css('--c-faint'), labelBackgroundColor: css('--c-soft') } },
    });
    const up = css('--c-up'), down = css('--c-down');
    price.applyOptions({ upColor: up, downColor: down, borderUpColor: up, borderDownColor: down, wickUpColor: up, wickDownColor: down, priceLineColor: css('--c-soft') });
  }
  function makeChart() {
    const L = window.LightweightCharts;
    chart = L.createChart($('chart'), {
      autoSize: true,
      localization: { locale: 'en-US', timeFormatter: (t) => `${day(t * 1000)} ${clock(t * 1000, state.interval < 60)} UTC` },
      timeScale: { timeVisible: true, secondsVisible: false, rightOffset: 4, minBarSpacing: 0.4, barSpacing: 7 },
      rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.22 } }, crosshair: { mode: 0 },
    });
    price = chart.addSeries(L.CandlestickSeries, { priceFormat: { type: 'custom', formatter: (p) => money(p), minMove: 1e-8 } });
    volume = chart.addSeries(L.HistogramSeries, { priceScaleId: 'volume', priceFormat: { type: 'volume' }, lastValueVisible: false, priceLineVisible: false });
    chart.priceScale('volume').applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    future = chart.addSeries(L.LineSeries, { lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false });
    markers = L.createSeriesMarkers(price, []);
    band = new Band();
    price.attachPrimitive(band);
    paintChart();
    chart.subscribeCrosshairMove((move) => readout(move.time ? candles.get(move.time * 1000) : null));
  }
  function point({ candle: c }) {
    const bar = { time: c.start_ms / 1000, open: +c.open, high: +c.high, low: +c.low, close: +c.close };
    if (c.is_empty) { const soft = css('--c-faint') + '99'; Object.assign(bar, { color: soft, borderColor: soft, wickColor: soft }); }
    if (c.is_partial) { const warn = css('--c-warn'); Object.assign(bar, { borderColor: warn, wickColor: warn }); }
    return bar;
  }
  const volumePoint = ({ candle: c }) => ({ time: c.start_ms / 1000, value: +c.volume, color: (+c.close >= +c.open ? css('--c-up') : css('--c-down')) + '55' });
  const sorted = () => [...candles.keys()].sort((a, b) => a - b);

  function redraw() { // all of it: at the start, on another symbol or theme, after a hole
    const step = state.interval * 1000, bars = [], volumes = [];
    let before = null;
    for (const start of sorted()) {
      if (before !== null && start - before > step && (start - before) / step < 2000) for (let t = before + step; t < start; t += step) bars.push({ time: t / 1000 });
      const row = candles.get(start);
      bars.push(point(row)); volumes.push(volumePoint(row));
      before = start;
    }
    price.setData(bars); volume.setData(volumes); points = bars.length;
    drawMarkers(); drawForecast(); summary();
  }
  function drawMarkers() {
    markers.setMarkers(sorted().filter((s) => candles.get(s).candle.revision > 0).map((s) => ({ time: s / 1000, position: 'aboveBar', shape: 'circle', size: 0.6, color: css('--c-warn'), text: 'r' + candles.get(s).candle.revision })));
  }
  function drawForecast() {
    const step = state.interval * 1000, grid = (ms) => Math.floor(ms / step) * step - step, last = state.lastBar ? state.lastBar.start_ms : 0;
    const rows = [...predictions.values()].filter((p) => p.lower !== null && p.upper !== null).sort((a, b) => a.target_ms - b.target_ms);
    const past = rows.map((p) => ({ at: grid(p.target_ms), lower: p.last_price * Math.exp(p.lower), upper: p.last_price * Math.exp(p.upper) })).filter((p) => p.at <= last);
    const p = state.prediction;
    let now = null, ahead = [];
    if (p && p.lower !== null && p.upper !== null && grid(p.target_ms) > p.start_ms && candles.has(p.start_ms)) {
      now = { from: p.start_ms, at: grid(p.target_ms), last: p.last_price, lower: p.last_price * Math.exp(p.lower), upper: p.last_price * Math.exp(p.upper), expected: p.expected_price ?? p.last_price, faded: p.expires_ms < nowMs() };
      for (let t = last + step; t <= now.at + 2 * step && ahead.length < 500; t += step) ahead.push({ time: t / 1000 });
    }
    future.setData(ahead);
    band.set(past, now);
  }

  // --- what comes in
  function takeCandle(candle, final) {
    if (candle.symbol !== state.symbol || candle.interval_seconds !== state.interval) return;
    const start = candle.start_ms, known = candles.get(start), fresh = !known;
    if (known && known.final && (!final || candle.revision < known.candle.revision)) return;
    const newest = state.lastBar ? state.lastBar.start_ms : 0;
    candles.set(start, { candle, final });
    if (start >= newest) state.lastBar = candle;
    const crowded = candles.size > 4000;
    if (crowded) sorted().slice(0, 2000).forEach((old) => { candles.delete(old); predictions.delete(old); });
    state.updates += 1;
    state.eventMs = Math.max(state.eventMs || 0, candle.as_of_ms || candle.end_ms);
    state.bars = candles.size;
    if (!buffer) {
      const row = candles.get(start), step = state.interval * 1000;
      if (crowded || (fresh && newest && (start < newest || start - newest > step))) redraw();
      else { price.update(point(row), start < newest); volume.update(volumePoint(row), start < newest); if (fresh) drawForecast(); if (candle.revision > 0) drawMarkers(); }
      summarySoon();
    }
  }
  function takePrediction(p) {
    if (p.symbol !== state.symbol || p.interval_seconds !== state.interval) return;
    const known = predictions.get(p.start_ms);
    if (known && known.revision > p.revision) return;
    predictions.set(p.start_ms, p);
    if (!state.prediction || p.start_ms >= state.prediction.start_ms) state.prediction = p;
    if (!buffer) { drawForecast(); panel(); }
  }
  function takeUpdate(channel, data) {
    if (channel === 'candles') takeCandle(data, true);
    else if (channel === 'candles_forming') takeCandle(data, false);
    else if (channel === 'predictions') takePrediction(data);
    else if (channel === 'news') newsSoon(400);
  }
  function takeLatest(latest) { for (const [channel, rows] of Object.entries(latest || {})) for (const row of Object.values(rows)) takeUpdate(channel, row); }

  async function history() { // what comes meanwhile waits in `buffer`
    const mine = (buffer = []), symbol = state.symbol, q = encodeURIComponent(symbol);
    let failed = false;
    clearTimeout(historyTimer);
    try {
      const [c, p] = await Promise.all([`/v1/candles?symbol=${q}&limit=1000`, `/v1/predictions?symbol=${q}&limit=1000`].map((u) => fetch(u).then((r) => (r.ok ? r.json() : Promise.reject(new Error(u + ' ' + r.status))))));
      if (buffer !== mine) return;
      state.interval = c.interval_seconds;
      candles = new Map(); predictions = new Map(); state.lastBar = null; state.prediction = null;
      const places = c.candles.slice(-200).map((row) => (row.close.split('.')[1] || '').length);
      digits = Math.min(8, Math.max(1, ...places, 0));
      c.candles.forEach((row) => takeCandle(row, true));
      p.predictions.forEach(takePrediction);
    } catch (error) { failed = true; console.warn('history', error.message); }
    if (buffer !== mine) return;
    mine.forEach(([channel, data]) => takeUpdate(channel, data));
    buffer = null;
    redraw(); panel();
    const wide = Math.max(60, Math.floor($('chart').clientWidth / 7));
    if (points > 2) chart.timeScale().setVisibleLogicalRange({ from: Math.max(-2, points - wide), to: points + 8 });
    state.ready = true;
    newsSoon(0);
    if (failed || candles.size < 2) historyTimer = setTimeout(() => { if (buffer === null && state.symbol === symbol) history(); }, 2000); // the store may not be readable yet
  }

  // --- the websocket
  function connect(resume) {
    clearTimeout(retryTimer);
    if (socket) { socket.onclose = socket.onmessage = null; socket.close(); }
    const q = new URLSearchParams({ symbols: state.symbol, channels: 'candles,candles_forming,predictions,news' });
    if (resume && state.seq !== null) { q.set('since', state.seq); q.set('epoch', state.epoch); }
    const mine = (socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/stream?${q}`));
    mine.onmessage = (event) => take(JSON.parse(event.data));
    mine.onopen = () => { heardAt = Date.now(); };
    mine.onclose = () => {
      if (socket !== mine) return;
      state.connection = 'reconnecting'; state.reconnects += 1;
      const wait = Math.min(15000, 500 * 2 ** retry++) * (0.7 + 0.6 * Math.random());
      retryTimer = setTimeout(() => connect(true), wait);
      link();
    };
  }
  function take(message) {
    heardAt = Date.now(); retry = 0; state.seq = message.seq;
    if (message.channel === 'stream') {
      if (state.epoch && state.epoch !== message.data.epoch && !document.body.dataset.plain) location.reload(); // Gradio's own session ended with the old server
      state.epoch = message.data.epoch;
      if (message.type === 'gap') { state.gaps += 1; return; }
      state.pulse = message.data;
      if (message.type === 'snapshot' && !message.data.resumed) { buffer = null; history(); buffer = buffer || []; Object.entries(message.data.latest).forEach(([channel, rows]) => Object.values(rows).forEach((row) => buffer.push([channel, row]))); }
      if (message.data.dashboard === 'ready' && document.body.dataset.plain) location.reload();
      state.connection = 'connected'; badges(); counts();
    } else if (buffer) buffer.push([message.channel, message.data]);
    else takeUpdate(message.channel, message.data);
  }

  // --- words around the chart
  let soon = null;
  const summarySoon = () => { soon = soon || setTimeout(() => { soon = null; summary(); }, 100); };
  function summary() {
    const last = state.lastBar;
    $('empty').hidden = candles.size > 0;
    text('name', state.symbol || '–'); text('interval', span(state.interval));
    if (last) {
      const hour = candles.get(last.start_ms - 3600000), base = hour ? +hour.candle.close : NaN, change = (+last.close / base - 1) * 100;
      text('last', money(+last.close));
      text('change', isFinite(change) ? `${signed(change, 2, '%')} in 1 h` : '');
      $('change').className = 'crt-change ' + (change > 0 ? 'up' : change < 0 ? 'down' : '');
    } else { text('last', '–'); text('change', ''); }
    readout(null); counts();
  }
  function readout(row) {
    const c = row ? row.candle : state.lastBar, box = $('readout');
    if (!c) { box.replaceChildren(); return; }
    const final = row ? row.final : (candles.get(c.start_ms) || {}).final;
    const notes = [final ? '' : 'forming', c.is_empty ? 'empty' : '', c.is_partial ? 'partial' : '', c.revision > 0 ? `revision ${c.revision}` : ''].filter(Boolean).join(', ');
    const items = [['', `${day(c.start_ms)} ${clock(c.start_ms, state.interval < 60)}`], ['O', money(+c.open)], ['H', money(+c.high)], ['L', money(+c.low)], ['C', money(+c.close)], ['Vol', amount(c.volume)], ['Trades', number(c.trade_count, 0)]];
    if (notes) items.push(['', notes]);
    box.replaceChildren(...items.map(([k, v]) => { const s = document.createElement('span'), b = document.createElement('b'); b.textContent = v; s.append(k ? k + ' ' : '', b); return s; }));
  }
  function counts() {
    const rows = [...candles.values()], starts = sorted(), step = state.interval * 1000;
    let holes = 0;
    starts.forEach((s, i) => { if (i) holes += (s - starts[i - 1]) / step - 1; });
    const many = (f) => rows.filter((r) => f(r.candle)).length, warn = (n) => (n ? 'warn' : '');
    const pulse = state.pulse || {}, partial = many((c) => c.is_partial), late = many((c) => c.revision > 0), dead = (pulse.dead_letters || 0) + (pulse.undecodable || 0), gaps = pulse.gaps || {}, open = (gaps.open || 0) + (gaps.timed_out || 0);
    list('counts', [
      ['Candles shown', number(rows.length, 0)], ['Trades in them', number(rows.reduce((n, r) => n + r.candle.trade_count, 0), 0)],
      ['Missing candles', number(holes, 0), warn(holes)], ['Empty', number(many((c) => c.is_empty), 0)], ['Partial', number(partial, 0), warn(partial)],
      ['Revised', number(late, 0)], exchange(pulse.reconciliation || {}), ['Gaps open', number(open, 0), warn(open)], ['Gaps filled', number(gaps.filled || 0, 0)], ['Dead letters', number(dead, 0), warn(dead)], ['Stream number', state.seq === null ? '–' : number(state.seq, 0)],
    ]);
  }
  function exchange(found) { // the last comparison with the exchange's own candles
    if (found.error) return ['Against the exchange', 'not compared', 'warn'];
    if (!found.compared) return ['Against the exchange', 'nothing yet'];
    return ['Against the exchange', found.unexplained ? `${number(found.unexplained, 0)} of ${number(found.compared, 0)} unexplained` : `${number(found.compared, 0)} agree`, found.unexplained ? 'bad' : ''];
  }
  function badges() {
    const pulse = state.pulse || {};
    const words = { live: ['Live', 'ok'], replay: ['Replay', 'warn'], simulated: ['Simulated', 'warn'] }[pulse.source] || ['–', ''];
    text('source', words[0]); tone('source', words[1]);
    const p = state.prediction;
    if (p) { text('model', p.status === 'baseline' ? 'Baseline model' : p.status === 'abstain' ? 'Abstaining' : `Model ${p.model_version}`); tone('model', p.status === 'ok' ? 'info' : p.status === 'abstain' ? 'warn' : ''); } else { text('model', 'No prediction yet'); tone('model', ''); }
    link();
  }
  function link() {
    const pulse = state.pulse || {}, quiet = Date.now() - heardAt;
    if (state.connection === 'connected' && quiet < 12000) {
      const down = pulse.bus && pulse.bus !== 'connected', lag = pulse.source === 'live' && state.eventMs ? Math.max(0, Date.now() - state.eventMs) / 1000 : null;
      text('link', down ? 'Bus unreachable' : lag === null ? 'Connected' : lag < 100 ? `Connected · lag ${number(lag, 1)} s` : `Connected · last data ${number(lag / 60, 0)} min ago`);
      tone('link', down || lag > 100 ? 'bad' : lag > 15 ? 'warn' : 'ok');
    } else { text('link', state.connection === 'connecting' ? 'Connecting' : quiet >= 12000 && state.connection === 'connected' ? `Silent for ${number(quiet / 1000, 0)} s` : 'Reconnecting'); tone('link', 'bad'); }
    const now = nowMs();
    text('clock', now ? `${pulse.source === 'live' ? '' : 'data clock '}${day(now)} ${clock(now)}` : '–');
  }
  function panel() {
    const p = state.prediction;
    badges();
    $('range').hidden = !(p && p.lower !== null && p.upper !== null);
    if (!p) { text('status', 'none yet'); tone('status', ''); text('expected', '–'); text('bps', ''); text('when', 'The first one follows the next final candle.'); list('facts', []); $('notes').replaceChildren(); return; }
    const expired = p.expires_ms < nowMs();
    text('status', expired ? `${p.status}, expired` : p.status); tone('status', expired || p.status === 'abstain' ? 'warn' : p.status === 'ok' ? 'ok' : 'info');
    text('expected', p.expected_price === null ? 'No forecast' : money(p.expected_price));
    const bps = p.expected_log_return === null ? null : p.expected_log_return * 10000;
    text('bps', bps === null ? '' : signed(bps, 1, 'bp')); $('bps').className = bps > 0 ? 'up' : bps < 0 ? 'down' : '';
    text('when', `expected at ${clock(p.target_ms)}, ${span(p.horizon_seconds)} after ${clock(p.start_ms + state.interval * 1000)}`);
    if (p.lower !== null && p.upper !== null) {
      const low = p.last_price * Math.exp(p.lower), high = p.last_price * Math.exp(p.upper), at = (v) => `${Math.min(99, Math.max(1, 7 + (86 * (v - low)) / (high - low)))}%`;
      text('lower', money(low)); text('upper', money(high)); text('level', `${number(p.level * 100, 0)} % interval`);
      document.querySelector('#crt-range .last').style.left = at(state.lastBar ? +state.lastBar.close : p.last_price);
      document.querySelector('#crt-range .mean').style.left = at(p.expected_price ?? p.last_price);
    }
    const width = p.lower === null || p.upper === null ? '–' : `${number((p.upper - p.lower) * 10000, 1)} bp`;
    list('facts', [['From price', money(p.last_price)], ['Interval width', width], ['Made at', `${day(p.made_at_ms)} ${clock(p.made_at_ms)}`], ['Expires', clock(p.expires_ms), expired ? 'warn' : ''],
      ['Model', p.model_version], ['Digest', p.model_digest.replace(/^sha256:/, '').slice(0, 12) || '–', 'code'], ['Features', p.feature_hash.replace(/^sha256:/, '').slice(0, 12) || '–', 'code']]);
    const notes = p.reasons.map((note) => note.replaceAll('_', ' '));
    const said = (flag) => notes.some((note) => flag.split(' ').every((word) => note.toLowerCase().includes(word)));
    p.flags.map((flag) => flag.replaceAll('_', ' ')).forEach((flag) => { if (!said(flag)) notes.push(flag); });
    $('notes').replaceChildren(...[...new Set(notes)].map((note) => { const s = document.createElement('span'); s.textContent = note; return s; }));
  }

  // --- the news: whatever a story says is text, never markup
  const element = (name, kind, value) => { const e = document.createElement(name); if (kind) e.className = kind; if (value !== undefined) e.textContent = value; return e; };
  const plain = (value, most = 300) => String(value).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, ' ').replace(/ +/g, ' ').trim().slice(0, most);
  function newsSoon(wait) { clearTimeout(newsTimer); newsTimer = setTimeout(news, wait); }
  async function news() {
    const symbol = state.symbol, q = encodeURIComponent(symbol);
    try {
      const [told, signal] = await Promise.all(['/v1/news?limit=30', `/v1/news/signal?symbol=${q}&limit=1000`].map((u) => fetch(u).then((r) => (r.ok ? r.json() : Promise.reject(new Error(u + ' ' + r.status))))));
      if (state.symbol !== symbol) return;
      state.news = told.news; state.newsThrough = told.through_ms; state.scorer = signal.scorer; state.decay = signal.points;
      drawNews();
    } catch (error) { console.warn('news', error.message); }
  }
  function scoreOf(signal) {
    const box = element('span', 'crt-score', `${signal.scorer} ${signal.score > 0 ? '+' : signal.score < 0 ? '−' : '±'}${Math.abs(signal.score).toFixed(2)}`);
    box.dataset.tone = { positive: 'ok', negative: 'bad' }[signal.label] || '';
    box.title = plain(`${signal.label}, confidence ${signal.confidence.toFixed(2)}, version ${signal.version}${signal.flags.length ? '; ' + signal.flags.join(', ') : ''}`);
    return box;
  }
  function storyRow(story) {
    const row = element('article', 'crt-story'), title = plain(story.title) || 'no title';
    const head = story.url ? element('a', '', title) : element('b', '', title), line = element('div', 'crt-story-line'), scores = element('div', 'crt-scores');
    if (story.url) { head.href = story.url; head.target = '_blank'; head.rel = 'noopener noreferrer nofollow'; head.referrerPolicy = 'no-referrer'; }
    head.dir = 'auto';
    const late = story.available_ms - story.published_ms;
    line.append(element('span', '', plain(story.source, 60)), element('span', '', `known ${day(story.available_ms)} ${clock(story.available_ms)}`), element('span', '', late > 60000 ? `published ${clock(story.published_ms, false)}, ${span(Math.round(late / 60000) * 60)} before` : `published ${clock(story.published_ms, false)}`));
    if (story.assets.length) line.append(element('span', 'crt-assets', plain(story.assets.join(' '), 80)));
    story.flags.forEach((flag) => line.append(element('span', 'crt-flag', plain(flag.replaceAll('_', ' '), 60))));
    scores.append(...(story.signals.length ? story.signals.map(scoreOf) : [element('span', 'crt-score', 'not scored yet')]));
    row.append(head, line, scores);
    return row;
  }
  function drawNews() {
    const box = $('news'), stories = state.news || [], points = (state.decay || []).filter((p) => p.value !== null && p.count > 0);
    if (!box || !chart) return;
    box.replaceChildren(...(stories.length ? stories.map(storyRow) : [element('div', 'crt-none', state.newsThrough ? 'No story in the last days.' : 'No news yet.')]));
    text('news-note', state.newsThrough ? `complete through ${clock(state.newsThrough)} UTC` : '');
    $('decay').hidden = !points.length;
    if (points.length) {
      const now = state.decay[state.decay.length - 1].value;
      text('decay-now', now === null ? 'none' : signed(now, 2, `by ${state.scorer}`));
      if (!decay) {
        decay = chart.addSeries(window.LightweightCharts.BaselineSeries, { baseValue: { type: 'price', price: 0 }, lineWidth: 2, priceLineVisible: false, priceFormat: { type: 'price', precision: 2, minMove: 0.01 } }, 1);
        chart.panes()[1].setHeight(80);
      }
      const up = css('--c-up'), down = css('--c-down'), step = state.interval * 1000;
      decay.applyOptions({ topLineColor: up, bottomLineColor: down, topFillColor1: up + '44', topFillColor2: up + '08', bottomFillColor1: down + '08', bottomFillColor2: down + '44' });
      decay.setData(state.decay.map((p) => (p.value === null ? { time: (p.at_ms - step) / 1000 } : { time: (p.at_ms - step) / 1000, value: p.value })));
    } else if (decay) { chart.removeSeries(decay); decay = null; }
    state.stories = stories.length;
  }
  setInterval(() => { if (chart && state.ready && !document.hidden) news(); }, 30000);

  // --- start
  function choose(symbol, again) {
    if (symbol === state.symbol && !again) return;
    if (decay) { chart.removeSeries(decay); decay = null; }
    state.decay = []; clearTimeout(historyTimer);
    Object.assign(state, { symbol, bars: 0, lastBar: null, prediction: null, seq: null, eventMs: 0, ready: false });
    candles = new Map(); predictions = new Map();
    store.set('crt-symbol', symbol);
    document.querySelectorAll('#crt-symbols button').forEach((b) => b.setAttribute('aria-selected', String(b.textContent === symbol)));
    redraw(); panel(); connect(false);
  }
  async function begin() {
    let reply = null;
    for (let wait = 300; !reply; wait = Math.min(5000, wait * 2)) {
      reply = await fetch('/v1/symbols').then((r) => (r.ok ? r.json() : null)).catch(() => null);
      if (!reply) await new Promise((r) => setTimeout(r, wait));
    }
    state.interval = reply.interval_seconds; state.symbols = reply.symbols.map((s) => s.symbol);
    $('symbols').replaceChildren(...state.symbols.map((symbol) => { const b = document.createElement('button'); b.type = 'button'; b.textContent = symbol; b.setAttribute('role', 'tab'); b.onclick = () => choose(symbol); return b; }));
    const kept = store.get('crt-symbol');
    choose(state.symbols.includes(kept) ? kept : state.symbols[0], true);
  }
  let began = null;
  function boot() { // Gradio puts the markup in when it is ready, and may do so again
    const root = document.getElementById('crt');
    if (!root || !window.LightweightCharts || began === root) return;
    began = root;
    if (chart) chart.remove();
    theme(wantedTheme());
    $('theme').onclick = () => { const name = document.documentElement.dataset.crtTheme === 'dark' ? 'light' : 'dark'; store.set('crt-theme', name); theme(name); };
    decay = null; makeChart(); begin();
  }
  setInterval(() => {
    boot();
    if (!chart || !began.isConnected) return;
    link();
    if (state.prediction && state.prediction.expires_ms < nowMs()) panel();
    if (state.connection === 'connected' && Date.now() - heardAt > 20000 && socket) { heardAt = Date.now(); connect(true); }
  }, 500);
  new MutationObserver(boot).observe(document.documentElement, { childList: true, subtree: true });
})();
