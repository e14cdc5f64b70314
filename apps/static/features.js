/* The features page: what the table declares, beside the newest value of each symbol and statistics over the candles in memory. */
(() => {
  'use strict';
  const $ = (id) => document.getElementById('crt-' + id);
  const element = (name, value) => { const e = document.createElement(name); if (value !== undefined) e.textContent = value; return e; };
  const short = (v) => (v === null || v === undefined ? '–' : v === 0 ? '0' : Math.abs(v) >= 1e6 || Math.abs(v) < 1e-4 ? v.toExponential(2) : String(+v.toPrecision(4)));
  const bound = (f) => (f.low === null && f.high === null ? 'any' : f.low === null ? `≤ ${f.high}` : f.high === null ? `≥ ${f.low}` : `${f.low} to ${f.high}`);
  const classes = { bits: 'to the last bit', '1e-9': 'to 1e-9 of their scale' };
  let told = null, asked = '';
  function cell(name, value, none) { const td = element('td', value); if (name) td.dataset.name = name; if (none) td.dataset.null = '1'; return td; }
  function row(f, symbols) {
    const tr = element('tr'), name = element('td'), meaning = element('td', f.meaning);
    tr.className = 'crt-feature';
    name.append(element('code', f.name));
    meaning.append(element('small', `from ${f.inputs.join(', ')} · since set ${f.since}${f.until ? ', gone in ' + f.until : ''} · when flat ${f.flat === null ? 'as computed' : f.flat} · live and batch equal ${classes[f.tolerance] || f.tolerance}`));
    tr.append(name, meaning);
    symbols.forEach(([symbol, s]) => { const v = s.values[f.name]; tr.append(cell(symbol, short(v), v === null || v === undefined)); });
    const first = f.stored || (symbols.length ? symbols[0][1].statistics[f.name] : null);
    tr.append(cell('Mean', first ? short(first.mean) : '–', !first), cell('Deviation', first ? short(first.std) : '–', !first), cell('Least', first ? short(first.min) : '–', !first), cell('Most', first ? short(first.max) : '–', !first), cell('Nulls', first ? String(first.nulls) : '–', !first));
    tr.append(cell('Range', bound(f)), cell('Warm-up', String(f.warm_up)));
    return tr;
  }
  function draw() {
    if (!told) return;
    const symbols = Object.entries(told.symbols), families = new Map();
    told.features.filter((f) => `${f.name} ${f.family} ${f.meaning}`.toLowerCase().includes(asked)).forEach((f) => families.set(f.family, [...(families.get(f.family) || []), f]));
    const stored = (told.features.find((f) => f.stored) || {}).stored;
    const newest = symbols.length ? symbols[0] : null;
    $('feature-note').textContent = `${told.features.length} features; set ${told.feature_set}. ` + (newest ? `Values of the candle of ${new Date(newest[1].start_ms).toISOString().slice(0, 16).replace('T', ' ')} UTC; statistics over ${stored ? `the ${(stored.count + stored.nulls).toLocaleString('en-US')} rows of all symbols in the store` : `the last ${newest[1].rows.toLocaleString('en-US')} candles of ${newest[0]} in memory`}.` : 'No candle has features yet.');
    const columns = ['Name', 'Meaning', ...symbols.map(([s]) => s), 'Mean', 'Deviation', 'Least', 'Most', 'Nulls', 'Range', 'Warm-up'];
    const box = element('div'), table = element('table'), head = element('thead'), line = element('tr');
    box.className = 'crt-scroll'; table.className = 'crt-table';
    line.append(...columns.map((word) => element('th', word)));
    head.append(line); table.append(head);
    families.forEach((rows, family) => {
      const body = element('tbody'), title = element('tr'), name = element('th', family[0].toUpperCase() + family.slice(1));
      name.colSpan = columns.length; title.className = 'crt-family'; title.append(name);
      body.append(title, ...rows.map((f) => row(f, symbols))); table.append(body);
    });
    box.append(table);
    $('families').replaceChildren(families.size ? box : element('p', 'No feature is called so.'));
    window.__cryptoRtFeatures = told.features.length;
  }
  async function load() {
    try {
      const reply = await fetch('/v1/features');
      if (!reply.ok) throw new Error(`the server said ${reply.status}`);
      told = await reply.json();
      draw();
    } catch (error) { $('feature-note').textContent = `The features cannot be loaded: ${error.message}`; }
  }
  $('find').oninput = () => { asked = $('find').value.trim().toLowerCase(); draw(); };
  load();
  setInterval(() => { if (!document.hidden) load(); }, 10000);
})();
