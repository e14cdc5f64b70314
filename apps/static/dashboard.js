/* The live page: history by REST, everything after it by the websocket.
   Uses TradingView's lightweight-charts, served beside this file. */
import { byId, element, getJson, remembered } from './dom.js';
import { isMade, makeChart, paint, removeNewsSignal } from './live/chart.js';
import { cancelRetry } from './live/history.js';
import { loadNews, showNews } from './live/news.js';
import { isExpired, showPrediction } from './live/prediction.js';
import { state, watch } from './live/state.js';
import { connect, drop, reconnectIfSilent } from './live/stream.js';
import { showConnection, showReadout } from './live/summary.js';
import { redrawAll } from './live/updates.js';
import { applyTheme, onThemeChange, switchTheme } from './theme.js';

const SYMBOL_KEY = 'crt-symbol';
const TICK_MS = 500, NEWS_MS = 30000;
const FIRST_WAIT_MS = 300, LONGEST_WAIT_MS = 5000;

let root = null; // the markup that is filled

window.__cryptoRt = Object.assign(state, { drop });

function choose(symbol) {
  removeNewsSignal();
  cancelRetry();
  watch(symbol);
  remembered.set(SYMBOL_KEY, symbol);
  for (const button of byId('symbols').children) {
    button.setAttribute('aria-selected', String(button.textContent === symbol));
  }
  redrawAll();
  showPrediction();
  connect();
}

function symbolButton(symbol) {
  const button = element('button', '', symbol);
  button.type = 'button';
  button.setAttribute('role', 'tab');
  button.onclick = () => { if (symbol !== state.symbol) choose(symbol); };
  return button;
}

async function askSymbols() {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(LONGEST_WAIT_MS, 2 * wait)) {
    try {
      return await getJson('/v1/symbols');
    } catch {
      await new Promise((done) => setTimeout(done, wait)); // the server may be starting
    }
  }
}

async function begin() {
  const reply = await askSymbols();
  state.interval = reply.interval_seconds;
  state.symbols = reply.symbols.map((row) => row.symbol);
  byId('symbols').replaceChildren(...state.symbols.map(symbolButton));
  const last = remembered.get(SYMBOL_KEY);
  choose(state.symbols.includes(last) ? last : state.symbols[0]);
}

/* Gradio puts the markup in when it is ready, and may do so again. */
function boot() {
  const found = document.getElementById('crt');
  if (!found || !window.LightweightCharts || root === found) return;
  root = found;
  byId('theme').onclick = switchTheme;
  makeChart(showReadout);
  applyTheme();
  begin();
}

function tick() {
  boot();
  if (!isMade() || !root.isConnected) return;
  showConnection();
  if (isExpired()) showPrediction();
  reconnectIfSilent();
}

onThemeChange(() => {
  if (!isMade()) return;
  paint();
  redrawAll();
  showNews();
});
setInterval(tick, TICK_MS);
setInterval(() => { if (isMade() && state.ready && !document.hidden) loadNews(); }, NEWS_MS);
new MutationObserver(boot).observe(document.documentElement, { childList: true, subtree: true });
boot();
