/* Light or dark: as the visitor chose, else as the system says. Every page of ours loads this. */
import { remembered, setText } from './dom.js';

const KEY = 'crt-theme';
const system = window.matchMedia('(prefers-color-scheme: dark)');
const listeners = [];

export function applyTheme(name = remembered.get(KEY) || (system.matches ? 'dark' : 'light')) {
  const root = document.documentElement;
  root.dataset.crtTheme = name;
  root.classList.toggle('dark', name === 'dark');
  if (document.body) document.body.classList.toggle('dark', name === 'dark');
  setText('theme', name === 'dark' ? '☀' : '☾');
  listeners.forEach((listener) => listener());
}

export function switchTheme() {
  const name = document.documentElement.dataset.crtTheme === 'dark' ? 'light' : 'dark';
  remembered.set(KEY, name);
  applyTheme(name);
}

export function onThemeChange(listener) {
  listeners.push(listener);
}

system.addEventListener('change', () => applyTheme());
applyTheme();
