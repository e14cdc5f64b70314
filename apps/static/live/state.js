/* Everything about the data that changes while the live page is open.
   Other modules hold only what they draw with, and timers. */

export const state = {
  // What is watched.
  symbols: [],
  symbol: null,
  interval: 60, // seconds of a candle
  digits: 2, // decimals of a price

  // What came of it.
  candles: new Map(), // start_ms -> {candle, final}
  predictions: new Map(), // start_ms -> prediction
  lastBar: null, // the newest candle, forming or final
  prediction: null, // the newest
  eventMs: 0, // the greatest event time received
  updates: 0, // candles taken
  pending: null, // [channel, data] that wait while the history is loaded; null: nothing is being loaded
  ready: false, // whether the history of this symbol has been loaded

  // The news.
  news: [],
  newsThrough: null, // ms up to which the news are complete
  scorer: '',
  signal: [], // the news signal at the ends of candles: {at_ms, value, count}
  stories: 0, // shown

  // The stream.
  connection: 'connecting', // or connected, or reconnecting
  seq: null, // number of the last message
  epoch: null, // the server's life in which that number counts
  pulse: null, // what the last snapshot or heartbeat said
  heardAt: 0, // when the last message came, by this browser's clock
  reconnects: 0,
  gaps: 0, // times that the server no longer had what was missed

  get bars() {
    return this.candles.size;
  },
};

export function forgetCandles() {
  Object.assign(state, { candles: new Map(), predictions: new Map(), lastBar: null, prediction: null });
}

export function watch(symbol) {
  forgetCandles();
  Object.assign(state, { symbol, seq: null, eventMs: 0, ready: false, signal: [] });
}

export const stepMs = () => state.interval * 1000;

export const sortedStarts = () => [...state.candles.keys()].sort((a, b) => a - b);

/* What time it is for the data: now when they are live, else as far as they have come. */
export function dataNow() {
  if (state.pulse && state.pulse.source === 'live') return Date.now();
  return Math.max(state.pulse ? state.pulse.clock_ms : 0, state.eventMs);
}

/* The interval of a prediction as prices; null where it promises none. */
export function priceRange(prediction) {
  if (!prediction || prediction.lower === null || prediction.upper === null) return null;
  return {
    lower: prediction.last_price * Math.exp(prediction.lower),
    upper: prediction.last_price * Math.exp(prediction.upper),
  };
}
