/* The websocket: messages in their order, and coming back after it broke. */
import { loadHistory } from './history.js';
import { state } from './state.js';
import { showBadges, showConnection, showCounts } from './summary.js';
import { takeUpdate } from './updates.js';

const CHANNELS = 'candles,candles_forming,predictions,news';
const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 15000;
const SILENT_MS = 20000; // then the connection is taken to be dead

/* The connection itself; what it has brought is in the state. */
const connection = { socket: null, tries: 0, timer: null };

/* Open the stream of the symbol: from where it broke, or from the present. */
export function connect({ resume = false } = {}) {
  clearTimeout(connection.timer);
  if (connection.socket) {
    connection.socket.onclose = connection.socket.onmessage = null;
    connection.socket.close();
  }
  const query = new URLSearchParams({ symbols: state.symbol, channels: CHANNELS });
  if (resume && state.seq !== null) {
    query.set('since', state.seq);
    query.set('epoch', state.epoch);
  }
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const socket = new WebSocket(`${scheme}://${location.host}/v1/stream?${query}`);
  connection.socket = socket;
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onopen = () => { state.heardAt = Date.now(); };
  socket.onclose = () => { if (connection.socket === socket) reconnectLater(); };
}

function reconnectLater() {
  state.connection = 'reconnecting';
  state.reconnects += 1;
  const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** connection.tries);
  connection.tries += 1;
  connection.timer = setTimeout(() => connect({ resume: true }), wait * (0.7 + 0.6 * Math.random()));
  showConnection();
}

/* For trying out what a lost connection does. */
export function drop() {
  if (connection.socket) connection.socket.close();
}

export function reconnectIfSilent() {
  if (state.connection !== 'connected' || Date.now() - state.heardAt <= SILENT_MS) return;
  state.heardAt = Date.now();
  connect({ resume: true });
}

function take(message) {
  state.heardAt = Date.now();
  state.seq = message.seq;
  connection.tries = 0;
  if (message.channel === 'stream') takeControl(message);
  else if (state.pending) state.pending.push([message.channel, message.data]);
  else takeUpdate(message.channel, message.data);
}

function takeControl({ type, data }) {
  const isPlain = Boolean(document.body.dataset.plain);
  const isOtherServer = state.epoch && state.epoch !== data.epoch;
  if (isOtherServer && !isPlain) location.reload(); // Gradio's own session ended with the old server
  state.epoch = data.epoch;
  if (type === 'gap') {
    state.gaps += 1;
    return;
  }
  state.pulse = data;
  if (type === 'snapshot' && !data.resumed) beginWith(data.latest);
  if (data.dashboard === 'ready' && isPlain) location.reload();
  state.connection = 'connected';
  showBadges();
  showCounts();
}

function beginWith(latest) {
  loadHistory();
  for (const [channel, rows] of Object.entries(latest)) {
    for (const row of Object.values(rows)) state.pending.push([channel, row]);
  }
}
