/* The news and what the scorers say of them. Whatever a story says is text, never markup. */
import { byId, element, getJson, setText } from '../dom.js';
import { clock, day, duration, plainText, sign, signed, words } from '../format.js';
import { drawNewsSignal, isMade, removeNewsSignal } from './chart.js';
import { state } from './state.js';

const STORIES = 30, POINTS = 1000;
const MINUTE_MS = 60000;
const TONES = { positive: 'ok', negative: 'bad' };

let timer = null; // of a call that is due

export function loadNewsSoon(waitMs) {
  clearTimeout(timer);
  timer = setTimeout(loadNews, waitMs);
}

export async function loadNews() {
  const symbol = state.symbol;
  try {
    const [latest, signal] = await Promise.all([
      getJson(`/v1/news?limit=${STORIES}`),
      getJson(`/v1/news/signal?symbol=${encodeURIComponent(symbol)}&limit=${POINTS}`),
    ]);
    if (state.symbol !== symbol) return;
    Object.assign(state, {
      news: latest.news, newsThrough: latest.through_ms, scorer: signal.scorer, signal: signal.points,
    });
    showNews();
  } catch (error) {
    console.warn('news', error.message);
  }
}

export function showNews() {
  if (!byId('news') || !isMade()) return;
  const none = state.newsThrough ? 'No story in the last days.' : 'No news yet.';
  const rows = state.news.length ? state.news.map(storyRow) : [element('div', 'crt-none', none)];
  byId('news').replaceChildren(...rows);
  setText('news-note', state.newsThrough ? `complete through ${clock(state.newsThrough)} UTC` : '');
  showSignal();
  state.stories = state.news.length;
}

function showSignal() {
  const isHeard = state.signal.some((point) => point.value !== null && point.count > 0);
  byId('decay').hidden = !isHeard;
  if (!isHeard) return removeNewsSignal();
  const now = state.signal.at(-1).value;
  setText('decay-now', now === null ? 'none' : signed(now, 2, `by ${state.scorer}`));
  drawNewsSignal(state.signal);
}

function storyRow(story) {
  const row = element('article', 'crt-story'), scores = element('div', 'crt-scores');
  const none = [element('span', 'crt-score', 'not scored yet')];
  scores.append(...(story.signals.length ? story.signals.map(scoreOf) : none));
  row.append(titleOf(story), storyLine(story), scores);
  return row;
}

function titleOf(story) {
  const title = element(story.url ? 'a' : 'b', '', plainText(story.title) || 'no title');
  title.dir = 'auto';
  if (story.url) {
    Object.assign(title, {
      href: story.url, target: '_blank', rel: 'noopener noreferrer nofollow', referrerPolicy: 'no-referrer',
    });
  }
  return title;
}

function storyLine(story) {
  const line = element('div', 'crt-story-line');
  const lateMs = story.available_ms - story.published_ms;
  const late = lateMs > MINUTE_MS ? `, ${duration(Math.round(lateMs / MINUTE_MS) * 60)} before` : '';
  line.append(
    element('span', '', plainText(story.source, 60)),
    element('span', '', `known ${day(story.available_ms)} ${clock(story.available_ms)}`),
    element('span', '', `published ${clock(story.published_ms, false)}${late}`),
  );
  if (story.assets.length) line.append(element('span', 'crt-assets', plainText(story.assets.join(' '), 80)));
  story.flags.forEach((flag) => line.append(element('span', 'crt-flag', plainText(words(flag), 60))));
  return line;
}

function scoreOf(signal) {
  const score = `${sign(signal.score)}${Math.abs(signal.score).toFixed(2)}`;
  const box = element('span', 'crt-score', `${signal.scorer} ${score}`);
  const flags = signal.flags.length ? `; ${signal.flags.join(', ')}` : '';
  box.dataset.tone = TONES[signal.label] || '';
  box.title = plainText(
    `${signal.label}, confidence ${signal.confidence.toFixed(2)}, version ${signal.version}${flags}`,
  );
  return box;
}
