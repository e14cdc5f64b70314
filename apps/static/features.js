/* The features page: what the table declares, beside the newest value of each symbol and statistics. */
import { byId, element, getJson } from './dom.js';
import { NONE } from './format.js';
import './theme.js';

const REFRESH_MS = 10000;
const TOLERANCES = { bits: 'to the last bit', '1e-9': 'to 1e-9 of their scale' };
const STATISTICS = [['Mean', 'mean'], ['Deviation', 'std'], ['Least', 'min'], ['Most', 'max']];

/* What was loaded last, and what is looked for. */
const state = { body: null, wanted: '' };

function short(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-4 ? value.toExponential(2) : String(+value.toPrecision(4));
}

function bounds({ low, high }) {
  if (low === null && high === null) return 'any';
  if (low === null) return `≤ ${high}`;
  return high === null ? `≥ ${low}` : `${low} to ${high}`;
}

function cell(name, value, isNull = false) {
  const made = element('td', '', value);
  made.dataset.name = name;
  if (isNull) made.dataset.null = '1';
  return made;
}

function meaningOf(feature) {
  const gone = feature.until ? `, gone in ${feature.until}` : '';
  const flat = feature.flat === null ? 'as computed' : feature.flat;
  const tolerance = TOLERANCES[feature.tolerance] || feature.tolerance;
  const made = element('td', '', feature.meaning);
  made.append(element('small', '', [
    `from ${feature.inputs.join(', ')}`,
    `since set ${feature.since}${gone}`,
    `when flat ${flat}`,
    `live and batch equal ${tolerance}`,
  ].join(' · ')));
  return made;
}

function rowOf(feature, symbols) {
  const row = element('tr', 'crt-feature'), name = element('td');
  name.append(element('code', '', feature.name));
  row.append(name, meaningOf(feature));
  for (const [symbol, { values }] of symbols) {
    const value = values[feature.name] ?? null;
    row.append(cell(symbol, short(value), value === null));
  }
  const known = feature.stored || (symbols.length ? symbols[0][1].statistics[feature.name] : null);
  for (const [title, key] of STATISTICS) row.append(cell(title, known ? short(known[key]) : NONE, !known));
  row.append(cell('Nulls', known ? String(known.nulls) : NONE, !known));
  row.append(cell('Range', bounds(feature)), cell('Warm-up', String(feature.warm_up)));
  return row;
}

function familyOf(name, rows, width) {
  const body = element('tbody'), line = element('tr', 'crt-family');
  const title = element('th', '', name[0].toUpperCase() + name.slice(1));
  title.colSpan = width;
  line.append(title);
  body.append(line, ...rows);
  return body;
}

function tableOf(features, symbols) {
  const titles = STATISTICS.map(([title]) => title);
  const names = symbols.map(([symbol]) => symbol);
  const columns = ['Name', 'Meaning', ...names, ...titles, 'Nulls', 'Range', 'Warm-up'];
  const box = element('div', 'crt-scroll'), table = element('table', 'crt-table');
  const head = element('thead'), line = element('tr');
  line.append(...columns.map((title) => element('th', '', title)));
  head.append(line);
  table.append(head);
  for (const family of new Set(features.map((feature) => feature.family))) {
    const rows = features.filter((feature) => feature.family === family);
    table.append(familyOf(family, rows.map((feature) => rowOf(feature, symbols)), columns.length));
  }
  box.append(table);
  return box;
}

function noteOf({ features, feature_set: set }, symbols) {
  const count = `${features.length} features; set ${set}.`;
  if (!symbols.length) return `${count} No candle has features yet.`;
  const [symbol, newest] = symbols[0];
  const stored = (features.find((feature) => feature.stored) || {}).stored;
  const many = (rows) => rows.toLocaleString('en-US');
  const over = stored
    ? `the ${many(stored.count + stored.nulls)} rows of all symbols in the store`
    : `the last ${many(newest.rows)} candles of ${symbol} in memory`;
  const start = new Date(newest.start_ms).toISOString().slice(0, 16).replace('T', ' ');
  return `${count} Values of the candle of ${start} UTC; statistics over ${over}.`;
}

function draw() {
  if (!state.body) return;
  const symbols = Object.entries(state.body.symbols);
  const isWanted = ({ name, family, meaning }) =>
    `${name} ${family} ${meaning}`.toLowerCase().includes(state.wanted);
  const features = state.body.features.filter(isWanted);
  byId('feature-note').textContent = noteOf(state.body, symbols);
  byId('families').replaceChildren(
    features.length ? tableOf(features, symbols) : element('p', '', 'No feature is called so.'),
  );
  window.__cryptoRtFeatures = state.body.features.length;
}

async function load() {
  try {
    state.body = await getJson('/v1/features');
    draw();
  } catch (error) {
    byId('feature-note').textContent = `The features cannot be loaded: ${error.message}`;
  }
}

byId('find').oninput = () => {
  state.wanted = byId('find').value.trim().toLowerCase();
  draw();
};
setInterval(() => { if (!document.hidden) load(); }, REFRESH_MS);
load();
