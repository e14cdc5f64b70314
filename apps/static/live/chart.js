/* The chart: candles, volume, revisions, the forecast and the news signal, all drawn from the state. */
import { byId, color, fontFamily } from '../dom.js';
import { clock, day, money } from '../format.js';
import { ForecastBand } from './band.js';
import { dataNow, priceRange, sortedStarts, state, stepMs } from './state.js';

const MAX_HOLE = 2000; // missing candles that are still shown as empty room
const MAX_AHEAD = 500; // candles of empty room for a forecast
const NEWS_PANE = 1, NEWS_HEIGHT = 80;
const BAR_WIDTH = 7;

/* What lightweight-charts made; `bars` counts the empty ones too. */
const view = {
  chart: null, price: null, volume: null, ahead: null, markers: null, band: null, news: null, bars: 0,
};

export const isMade = () => view.chart !== null;

export function makeChart(onHover) {
  const charts = window.LightweightCharts;
  if (view.chart) view.chart.remove();
  view.chart = charts.createChart(byId('chart'), {
    autoSize: true,
    localization: {
      locale: 'en-US',
      timeFormatter: (seconds) => `${day(seconds * 1000)} ${clock(seconds * 1000, state.interval < 60)} UTC`,
    },
    timeScale: {
      timeVisible: true, secondsVisible: false, rightOffset: 4, minBarSpacing: 0.4, barSpacing: BAR_WIDTH,
    },
    rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.22 } },
    crosshair: { mode: 0 },
  });
  const quiet = { lastValueVisible: false, priceLineVisible: false };
  view.price = view.chart.addSeries(charts.CandlestickSeries, {
    priceFormat: { type: 'custom', formatter: (price) => money(price, state.digits), minMove: 1e-8 },
  });
  view.volume = view.chart.addSeries(charts.HistogramSeries, {
    priceScaleId: 'volume', priceFormat: { type: 'volume' }, ...quiet,
  });
  view.chart.priceScale('volume').applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
  view.ahead = view.chart.addSeries(charts.LineSeries, { crosshairMarkerVisible: false, ...quiet });
  view.markers = charts.createSeriesMarkers(view.price, []);
  view.band = new ForecastBand(stepMs);
  view.price.attachPrimitive(view.band);
  view.news = null;
  paint();
  view.chart.subscribeCrosshairMove(({ time }) => onHover(time ? state.candles.get(time * 1000) : null));
}

/* Take the colours of the theme. */
export function paint() {
  const line = color('line'), track = color('track'), soft = color('soft');
  const crosshair = { color: color('faint'), labelBackgroundColor: soft };
  view.chart.applyOptions({
    layout: {
      background: { color: color('card') }, textColor: soft, attributionLogo: true,
      fontFamily: fontFamily(), fontSize: 11,
    },
    grid: { vertLines: { color: track }, horzLines: { color: track } },
    rightPriceScale: { borderColor: line },
    timeScale: { borderColor: line },
    crosshair: { vertLine: crosshair, horzLine: crosshair },
  });
  const up = color('up'), down = color('down');
  view.price.applyOptions({
    upColor: up, borderUpColor: up, wickUpColor: up,
    downColor: down, borderDownColor: down, wickDownColor: down,
    priceLineColor: soft,
  });
}

const colors = () => ({ up: color('up'), down: color('down'), faint: color('faint'), warn: color('warn') });

function priceBar(candle, { faint, warn }) {
  const { open, high, low, close } = candle;
  const bar = { time: candle.start_ms / 1000, open: +open, high: +high, low: +low, close: +close };
  const pale = faint + '99';
  if (candle.is_empty) Object.assign(bar, { color: pale, borderColor: pale, wickColor: pale });
  if (candle.is_partial) Object.assign(bar, { borderColor: warn, wickColor: warn });
  return bar;
}

function volumeBar(candle, { up, down }) {
  const strong = +candle.close >= +candle.open ? up : down;
  return { time: candle.start_ms / 1000, value: +candle.volume, color: strong + '55' };
}

/* All of it: at the start, on another symbol or theme, after a hole. */
export function redraw() {
  const step = stepMs(), palette = colors(), bars = [], volumes = [];
  let before = null;
  for (const start of sortedStarts()) {
    const hasHole = before !== null && start - before > step && (start - before) / step < MAX_HOLE;
    for (let time = before + step; hasHole && time < start; time += step) bars.push({ time: time / 1000 });
    const { candle } = state.candles.get(start);
    bars.push(priceBar(candle, palette));
    volumes.push(volumeBar(candle, palette));
    before = start;
  }
  view.price.setData(bars);
  view.volume.setData(volumes);
  view.bars = bars.length;
  drawMarkers();
  drawForecast();
}

/* One candle; `isOld` when a newer one is shown already. */
export function updateBar(candle, isOld) {
  const palette = colors();
  view.price.update(priceBar(candle, palette), isOld);
  view.volume.update(volumeBar(candle, palette), isOld);
}

export function drawMarkers() {
  const candles = sortedStarts().map((start) => state.candles.get(start).candle);
  const revised = candles.filter((candle) => candle.revision > 0);
  view.markers.setMarkers(revised.map((candle) => ({
    time: candle.start_ms / 1000, position: 'aboveBar', shape: 'circle', size: 0.6,
    color: color('warn'), text: `r${candle.revision}`,
  })));
}

/* The start of the last candle that ends at an instant or before: there a target time is drawn. */
const candleBefore = (ms) => Math.floor(ms / stepMs()) * stepMs() - stepMs();

export function drawForecast() {
  const last = state.lastBar ? state.lastBar.start_ms : 0;
  const past = [...state.predictions.values()]
    .filter((row) => priceRange(row) && candleBefore(row.target_ms) <= last)
    .sort((a, b) => a.target_ms - b.target_ms)
    .map((row) => ({ at: candleBefore(row.target_ms), ...priceRange(row) }));
  const present = presentForecast();
  const room = [];
  if (present) {
    const until = present.at + 2 * stepMs();
    for (let time = last + stepMs(); time <= until && room.length < MAX_AHEAD; time += stepMs()) {
      room.push({ time: time / 1000 });
    }
  }
  view.ahead.setData(room);
  view.band.set(past, present);
}

function presentForecast() {
  const row = state.prediction, range = priceRange(row);
  if (!range || candleBefore(row.target_ms) <= row.start_ms || !state.candles.has(row.start_ms)) return null;
  return {
    from: row.start_ms,
    at: candleBefore(row.target_ms),
    last: row.last_price,
    ...range,
    expected: row.expected_price ?? row.last_price,
    faded: row.expires_ms < dataNow(),
  };
}

/* As many of the newest bars as there is room for. */
export function showNewest() {
  const fitting = Math.max(60, Math.floor(byId('chart').clientWidth / BAR_WIDTH));
  if (view.bars <= 2) return;
  const range = { from: Math.max(-2, view.bars - fitting), to: view.bars + 8 };
  view.chart.timeScale().setVisibleLogicalRange(range);
}

/* The news signal in a pane of its own; without a score there is none. */
export function drawNewsSignal(points) {
  if (!view.news) {
    view.news = view.chart.addSeries(window.LightweightCharts.BaselineSeries, {
      baseValue: { type: 'price', price: 0 }, lineWidth: 2, priceLineVisible: false,
      priceFormat: { type: 'price', precision: 2, minMove: 0.01 },
    }, NEWS_PANE);
    view.chart.panes()[NEWS_PANE].setHeight(NEWS_HEIGHT);
  }
  const { up, down } = colors();
  view.news.applyOptions({
    topLineColor: up, topFillColor1: up + '44', topFillColor2: up + '08',
    bottomLineColor: down, bottomFillColor1: down + '08', bottomFillColor2: down + '44',
  });
  view.news.setData(points.map(({ at_ms: at, value }) => {
    const time = (at - stepMs()) / 1000;
    return value === null ? { time } : { time, value };
  }));
}

export function removeNewsSignal() {
  if (view.news) view.chart.removeSeries(view.news);
  view.news = null;
}
