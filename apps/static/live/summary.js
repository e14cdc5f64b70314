/* The words around the chart: price, readout, counts, badges, and how the connection is. */
import { byId, element, setList, setText, setTone } from '../dom.js';
import { NONE, amount, clock, day, duration, money, number, signed } from '../format.js';
import { dataNow, sortedStarts, state, stepMs } from './state.js';

const HOUR_MS = 3600000;
const SILENT_MS = 12000; // heartbeats come every 5 s
const SLOW_SECONDS = 15, STALE_SECONDS = 100;
const SOURCES = { live: ['Live', 'ok'], replay: ['Replay', 'warn'], simulated: ['Simulated', 'warn'] };

let timer = null; // of a summary that is due

export function showSummarySoon() {
  timer = timer || setTimeout(showSummary, 100);
}

export function showSummary() {
  clearTimeout(timer);
  timer = null;
  byId('empty').hidden = state.candles.size > 0;
  setText('name', state.symbol || NONE);
  setText('interval', duration(state.interval));
  showPrice();
  showReadout(null);
  showCounts();
}

function showPrice() {
  const last = state.lastBar;
  const hourAgo = last && state.candles.get(last.start_ms - HOUR_MS);
  const change = hourAgo ? (+last.close / +hourAgo.candle.close - 1) * 100 : NaN;
  setText('last', last ? money(+last.close, state.digits) : NONE);
  setText('change', isFinite(change) ? `${signed(change, 2, '%')} in 1 h` : '');
  byId('change').className = `crt-change ${direction(change)}`;
}

export function direction(value) {
  if (value > 0) return 'up';
  return value < 0 ? 'down' : '';
}

/* The numbers of one candle: of the one under the pointer, else of the newest. */
export function showReadout(row) {
  const candle = row ? row.candle : state.lastBar;
  const items = candle ? readoutOf(candle) : [];
  byId('readout').replaceChildren(...items.map(([name, value]) => {
    const item = element('span');
    item.append(name ? `${name} ` : '', element('b', '', value));
    return item;
  }));
}

function readoutOf(candle) {
  const price = (value) => money(+value, state.digits);
  const isFinal = (state.candles.get(candle.start_ms) || {}).final;
  const notes = [];
  if (!isFinal) notes.push('forming');
  if (candle.is_empty) notes.push('empty');
  if (candle.is_partial) notes.push('partial');
  if (candle.is_unproven) notes.push('unproven');
  if (candle.revision > 0) notes.push(`revision ${candle.revision}`);
  const items = [
    ['', `${day(candle.start_ms)} ${clock(candle.start_ms, state.interval < 60)}`],
    ['O', price(candle.open)], ['H', price(candle.high)],
    ['L', price(candle.low)], ['C', price(candle.close)],
    ['Vol', amount(candle.volume)], ['Trades', number(candle.trade_count, 0)],
  ];
  return notes.length ? [...items, ['', notes.join(', ')]] : items;
}

export function showCounts() {
  const candles = [...state.candles.values()].map((row) => row.candle);
  const pulse = state.pulse || {}, gaps = pulse.gaps || {};
  const trades = candles.reduce((sum, candle) => sum + candle.trade_count, 0);
  const row = (name, count) => [name, number(count, 0)];
  const warned = (name, count) => [name, number(count, 0), count ? 'warn' : ''];
  setList('counts', [
    row('Candles shown', candles.length),
    row('Trades in them', trades),
    warned('Missing candles', missingCandles()),
    row('Empty', candles.filter((candle) => candle.is_empty).length),
    warned('Unproven', candles.filter((candle) => candle.is_unproven).length),
    warned('Partial', candles.filter((candle) => candle.is_partial).length),
    row('Revised', candles.filter((candle) => candle.revision > 0).length),
    comparisonRow(pulse.reconciliation || {}),
    subscriptionsRow(pulse.subscriptions || {}),
    warned('Gaps open', (gaps.open || 0) + (gaps.timed_out || 0)),
    row('Gaps filled', gaps.filled || 0),
    warned('Dead letters', (pulse.dead_letters || 0) + (pulse.undecodable || 0)),
    ['Stream number', state.seq === null ? NONE : number(state.seq, 0)],
  ]);
}

function missingCandles() {
  const starts = sortedStarts();
  if (!starts.length) return 0;
  return (starts.at(-1) - starts[0]) / stepMs() + 1 - starts.length;
}

/* What became of asking the exchange for trades and quotes. */
function subscriptionsRow({ acknowledged = 0, asked = 0, refused = 0, silent = 0 }) {
  const name = 'Subscriptions', wrong = refused + silent;
  if (wrong) return [name, `${wrong} of ${acknowledged + asked + wrong} refused or silent`, 'bad'];
  if (asked) return [name, `${acknowledged} granted, ${asked} asked for`];
  return [name, acknowledged ? `${acknowledged} granted` : NONE];
}

/* What a service cannot do now, in its own words; nothing while all is well. */
function showDegraded() {
  const reasons = (state.pulse && state.pulse.degraded) || [];
  const box = byId('degraded');
  if (!box) return;
  box.hidden = !reasons.length;
  box.replaceChildren(...reasons.map((reason) => element('li', '', reason)));
}

/* The last comparison with the exchange's own candles. */
function comparisonRow({ error, compared, unexplained }) {
  const name = 'Against the exchange';
  if (error) return [name, 'not compared', 'warn'];
  if (!compared) return [name, 'nothing yet'];
  if (unexplained) return [name, `${number(unexplained, 0)} of ${number(compared, 0)} unexplained`, 'bad'];
  return [name, `${number(compared, 0)} agree`];
}

export function showBadges() {
  showDegraded();
  if (state.pulse) {
    const [name, tone] = SOURCES[state.pulse.source] || [NONE, ''];
    setText('source', name);
    setTone('source', tone);
  }
  const [model, tone] = modelBadge(state.prediction);
  setText('model', model);
  setTone('model', tone);
  showConnection();
}

function modelBadge(prediction) {
  if (!prediction) return ['No prediction yet', ''];
  if (prediction.status === 'baseline') return ['Baseline model', ''];
  if (prediction.status === 'abstain') return ['Abstaining', 'warn'];
  return [`Model ${prediction.model_version}`, 'info'];
}

export function showConnection() {
  const [words, tone] = connectionBadge(state.pulse || {}, Date.now() - state.heardAt);
  setText('link', words);
  setTone('link', tone);
  const now = dataNow(), isLive = state.pulse && state.pulse.source === 'live';
  setText('clock', now ? `${isLive ? '' : 'data clock '}${day(now)} ${clock(now)}` : NONE);
}

function connectionBadge(pulse, quietMs) {
  if (state.connection === 'connecting') return ['Connecting', 'bad'];
  if (state.connection === 'reconnecting') return ['Reconnecting', 'bad'];
  if (quietMs >= SILENT_MS) return [`Silent for ${number(quietMs / 1000, 0)} s`, 'bad'];
  if (pulse.bus && pulse.bus !== 'connected') return ['Bus unreachable', 'bad'];
  const troubles = (pulse.degraded || []).length;
  if (troubles) return [`Degraded · ${number(troubles, 0)} ${troubles === 1 ? 'trouble' : 'troubles'}`, 'warn'];
  if (pulse.source !== 'live' || !state.eventMs) return ['Connected', 'ok'];
  const lag = Math.max(0, Date.now() - state.eventMs) / 1000;
  if (lag > STALE_SECONDS) return [`Connected · last data ${number(lag / 60, 0)} min ago`, 'bad'];
  return [`Connected · lag ${number(lag, 1)} s`, lag > SLOW_SECONDS ? 'warn' : 'ok'];
}
