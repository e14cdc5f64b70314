/* The card of the newest prediction. */
import { byId, element, setList, setText, setTone } from '../dom.js';
import { NONE, clock, day, duration, money, number, signed, words } from '../format.js';
import { dataNow, priceRange, state, stepMs } from './state.js';
import { direction, showBadges } from './summary.js';

const EDGE = 7; // percent of the track on either side of the interval

export const isExpired = () => state.prediction !== null && state.prediction.expires_ms < dataNow();

export function showPrediction() {
  showBadges();
  const prediction = state.prediction, range = priceRange(prediction);
  byId('range').hidden = range === null;
  if (prediction === null) return showNone();
  showStatus(prediction);
  showExpected(prediction);
  if (range) showRange(prediction, range);
  showFacts(prediction, range);
  byId('notes').replaceChildren(...notesOf(prediction).map((note) => element('span', '', note)));
}

function showNone() {
  setText('status', 'none yet');
  setTone('status', '');
  setText('expected', NONE);
  setText('bps', '');
  setText('when', 'The first one follows the next final candle.');
  setList('facts', []);
  byId('notes').replaceChildren();
}

function showStatus({ status }) {
  const tones = { ok: 'ok', abstain: 'warn' };
  setText('status', isExpired() ? `${status}, expired` : status);
  setTone('status', isExpired() ? 'warn' : tones[status] || 'info');
}

function showExpected(prediction) {
  const { expected_price: price, expected_log_return: logReturn } = prediction;
  const basisPoints = logReturn === null ? null : logReturn * 10000;
  setText('expected', price === null ? 'No forecast' : money(price, state.digits));
  setText('bps', basisPoints === null ? '' : signed(basisPoints, 1, 'bp'));
  byId('bps').className = direction(basisPoints);
  const horizon = duration(prediction.horizon_seconds);
  const from = clock(prediction.start_ms + stepMs());
  setText('when', `expected at ${clock(prediction.target_ms)}, ${horizon} after ${from}`);
}

function showRange(prediction, { lower, upper }) {
  setText('lower', money(lower, state.digits));
  setText('upper', money(upper, state.digits));
  setText('level', `${number(prediction.level * 100, 0)} % interval`);
  const place = (price) => {
    const percent = EDGE + ((100 - 2 * EDGE) * (price - lower)) / (upper - lower);
    return `${Math.min(99, Math.max(1, percent))}%`;
  };
  const last = state.lastBar ? +state.lastBar.close : prediction.last_price;
  document.querySelector('#crt-range .last').style.left = place(last);
  const mean = prediction.expected_price ?? prediction.last_price;
  document.querySelector('#crt-range .mean').style.left = place(mean);
}

const digest = (text) => text.replace(/^sha256:/, '').slice(0, 12) || NONE;

/* Where the price is as likely inside as outside. */
function middleHalf({ last_price: price, q25, q75 }) {
  if (q25 == null || q75 == null) return NONE;
  return `${money(price * Math.exp(q25), state.digits)} to ${money(price * Math.exp(q75), state.digits)}`;
}

function showFacts(prediction, range) {
  const width = range ? `${number((prediction.upper - prediction.lower) * 10000, 1)} bp` : NONE;
  const { volatility, probability_up: rise } = prediction;
  setList('facts', [
    ['From price', money(prediction.last_price, state.digits)],
    ['Interval width', width],
    ['Middle half', middleHalf(prediction)],
    ['Volatility', volatility == null ? NONE : `${number(volatility, 2)} % an hour`],
    ['Chance of a rise', rise == null ? NONE : `${number(rise * 100, 0)} %`],
    ['Made at', `${day(prediction.made_at_ms)} ${clock(prediction.made_at_ms)}`],
    ['Expires', clock(prediction.expires_ms), isExpired() ? 'warn' : ''],
    ['Model', prediction.model_version],
    ['Digest', digest(prediction.model_digest), 'code'],
    ['Features', digest(prediction.feature_hash), 'code'],
  ]);
}

/* The reasons, and the flags of which no reason speaks. */
function notesOf({ reasons, flags }) {
  const notes = reasons.map(words);
  const says = (note, flag) => flag.split(' ').every((word) => note.toLowerCase().includes(word));
  for (const flag of flags.map(words)) {
    if (!notes.some((note) => says(note, flag))) notes.push(flag);
  }
  return [...new Set(notes)];
}
