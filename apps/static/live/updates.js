/* What comes in, one message at a time: into the state, then onto the page. */
import { drawForecast, drawMarkers, redraw, updateBar } from './chart.js';
import { loadNewsSoon } from './news.js';
import { showPrediction } from './prediction.js';
import { sortedStarts, state, stepMs } from './state.js';
import { showSummary, showSummarySoon } from './summary.js';

const MAX_CANDLES = 4000, FORGOTTEN_AT_ONCE = 2000;
const NEWS_WAIT_MS = 400; // stories come in bursts

export function redrawAll() {
  redraw();
  showSummary();
}

export function takeUpdate(channel, data) {
  if (channel === 'candles') takeCandle(data, true);
  else if (channel === 'candles_forming') takeCandle(data, false);
  else if (channel === 'predictions') takePrediction(data);
  else if (channel === 'news') loadNewsSoon(NEWS_WAIT_MS);
}

const isWatched = (message) => message.symbol === state.symbol && message.interval_seconds === state.interval;

export function takeCandle(candle, final) {
  if (!isWatched(candle)) return;
  const start = candle.start_ms, known = state.candles.get(start);
  if (known && known.final && (!final || candle.revision < known.candle.revision)) return;
  const newest = state.lastBar ? state.lastBar.start_ms : 0;
  state.candles.set(start, { candle, final });
  if (start >= newest) state.lastBar = candle;
  state.eventMs = Math.max(state.eventMs, candle.as_of_ms || candle.end_ms);
  state.updates += 1;
  const hasForgotten = forgetOldCandles();
  if (state.pending) return;
  const isNew = !known, isOutOfOrder = newest && (start < newest || start - newest > stepMs());
  if (hasForgotten || (isNew && isOutOfOrder)) redrawAll();
  else {
    updateBar(candle, start < newest);
    if (isNew) drawForecast();
    if (candle.revision > 0) drawMarkers();
  }
  showSummarySoon();
}

function forgetOldCandles() {
  if (state.candles.size <= MAX_CANDLES) return false;
  for (const start of sortedStarts().slice(0, FORGOTTEN_AT_ONCE)) {
    state.candles.delete(start);
    state.predictions.delete(start);
  }
  return true;
}

export function takePrediction(prediction) {
  if (!isWatched(prediction)) return;
  const known = state.predictions.get(prediction.start_ms);
  if (known && known.revision > prediction.revision) return;
  state.predictions.set(prediction.start_ms, prediction);
  if (!state.prediction || prediction.start_ms >= state.prediction.start_ms) state.prediction = prediction;
  if (state.pending) return;
  drawForecast();
  showPrediction();
}
