/* The past of the symbol, by REST. What the stream brings meanwhile waits in `state.pending`. */
import { getJson } from '../dom.js';
import { showNewest } from './chart.js';
import { loadNewsSoon } from './news.js';
import { showPrediction } from './prediction.js';
import { forgetCandles, state } from './state.js';
import { redrawAll, takeCandle, takePrediction, takeUpdate } from './updates.js';

const ROWS = 1000;
const RETRY_MS = 2000; // the store may not be readable yet
const MAX_DIGITS = 8;

let timer = null; // of another try

export const cancelRetry = () => clearTimeout(timer);

export async function loadHistory() {
  cancelRetry();
  const symbol = state.symbol, pending = [];
  state.pending = pending;
  const isOvertaken = () => state.pending !== pending || state.symbol !== symbol;
  let hasFailed = false;
  try {
    const query = `symbol=${encodeURIComponent(symbol)}&limit=${ROWS}`;
    const [past, forecasts] = await Promise.all([
      getJson(`/v1/candles?${query}`), getJson(`/v1/predictions?${query}`),
    ]);
    if (isOvertaken()) return;
    forgetCandles();
    state.interval = past.interval_seconds;
    state.digits = decimalsOf(past.candles);
    past.candles.forEach((candle) => takeCandle(candle, true));
    forecasts.predictions.forEach(takePrediction);
  } catch (error) {
    hasFailed = true;
    console.warn('history', error.message);
  }
  if (isOvertaken()) return;
  pending.forEach(([channel, data]) => takeUpdate(channel, data));
  state.pending = null;
  redrawAll();
  showPrediction();
  showNewest();
  state.ready = true;
  loadNewsSoon(0);
  if (hasFailed || state.bars < 2) {
    timer = setTimeout(() => {
      if (state.pending === null && state.symbol === symbol) loadHistory();
    }, RETRY_MS);
  }
}

function decimalsOf(candles) {
  const decimals = candles.slice(-200).map((candle) => (candle.close.split('.')[1] || '').length);
  return Math.min(MAX_DIGITS, Math.max(1, ...decimals));
}
