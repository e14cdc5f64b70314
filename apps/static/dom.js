/* Small steps on the page. Text goes in as text, never as markup. */

export const byId = (id) => document.getElementById(`crt-${id}`);

export function element(name, className = '', text = undefined) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function setText(id, text) {
  const found = byId(id);
  if (found && found.textContent !== text) found.textContent = text;
}

export function setTone(id, tone) {
  const found = byId(id);
  if (found && found.dataset.tone !== tone) found.dataset.tone = tone;
}

/* Fill a <dl>; a row is [name, value, class of the value], where the class `code` makes it code. */
export function setList(id, rows) {
  const box = byId(id);
  if (!box) return;
  box.replaceChildren(...rows.flatMap(([name, value, kind]) => {
    const definition = kind === 'code' ? element('dd') : element('dd', kind, value);
    if (kind === 'code') definition.append(element('code', '', value));
    return [element('dt', '', name), definition];
  }));
}

const ofTheTheme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const color = (name) => ofTheTheme(`--c-${name}`);

export const fontFamily = () => ofTheTheme('--f-text');

export async function getJson(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(`${address} ${reply.status}`);
  return reply.json();
}

/* What this browser remembers of the visitor; in a private window nothing. */
export const remembered = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // a private window
    }
  },
};
