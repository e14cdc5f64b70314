/* Numbers and times as people read them; all times are UTC. */

export const NONE = '–';

export const number = (value, digits) =>
  Number(value).toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });

export const money = (value, digits) =>
  value === null || value === undefined || !isFinite(value) ? NONE : number(value, digits);

export function amount(text) {
  const value = Number(text);
  if (value === 0) return '0';
  if (value >= 1000) return number(value, 0);
  return value >= 1 ? number(value, 3) : value.toPrecision(4);
}

export function sign(value) {
  if (value === 0) return '±';
  return value > 0 ? '+' : '−';
}

export const signed = (value, digits, unit) => `${sign(value)}${number(Math.abs(value), digits)} ${unit}`;

const twoDigits = (value) => String(value).padStart(2, '0');

export function clock(ms, withSeconds = true) {
  const date = new Date(ms);
  const minutes = `${twoDigits(date.getUTCHours())}:${twoDigits(date.getUTCMinutes())}`;
  return withSeconds ? `${minutes}:${twoDigits(date.getUTCSeconds())}` : minutes;
}

export const day = (ms) => new Date(ms).toISOString().slice(0, 10);

export function duration(seconds) {
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}

// Control characters, and those that turn the direction of the text around.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/* A stranger's words on one line. */
export const plainText = (value, longest = 300) =>
  String(value).replace(INVISIBLE, ' ').replace(/ +/g, ' ').trim().slice(0, longest);

export const words = (name) => name.replaceAll('_', ' ');
