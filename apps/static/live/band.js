/* The forecast, drawn under the candles: intervals of the past as a band, the present one as a fan. */
import { color } from '../dom.js';

const MAX_MISSING = 3; // candles without a prediction after which the band is interrupted

/* Split what lies too far apart, or outside of the scales, into runs that are drawn each by itself. */
function runsOf(points, longest) {
  const runs = [[]];
  let before = 0;
  for (const point of points) {
    const isOutside = point.x === null || point.top === null || point.bottom === null;
    if (isOutside || point.at - before > longest) runs.push([]);
    if (!isOutside) runs.at(-1).push(point);
    before = point.at;
  }
  return runs.filter((run) => run.length > 1);
}

/* A primitive of lightweight-charts, attached to the series of candles. */
export class ForecastBand {
  constructor(stepMs) {
    this.stepMs = stepMs; // function: how far two candles lie apart
    this.past = []; // {at, lower, upper}
    this.present = null; // {from, at, last, lower, upper, expected, faded}
  }

  attached({ chart, series, requestUpdate }) {
    Object.assign(this, { chart, series, requestUpdate });
  }

  detached() {
    this.requestUpdate = null;
  }

  set(past, present) {
    Object.assign(this, { past, present });
    if (this.requestUpdate) this.requestUpdate();
  }

  updateAllViews() {
    // coordinates are taken while drawing
  }

  autoscaleInfo() {
    if (!this.present) return null;
    return { priceRange: { minValue: this.present.lower, maxValue: this.present.upper } };
  }

  paneViews() {
    const draw = (target) => target.useBitmapCoordinateSpace((space) => this.draw(space));
    return [{ zOrder: () => 'bottom', renderer: () => ({ draw }) }];
  }

  draw({ context, horizontalPixelRatio: ratioX, verticalPixelRatio: ratioY }) {
    const scaled = (coordinate, ratio) => (coordinate === null ? null : coordinate * ratio);
    const x = (ms) => scaled(this.chart.timeScale().timeToCoordinate(ms / 1000), ratioX);
    const y = (price) => scaled(this.series.priceToCoordinate(price), ratioY);
    context.save();
    this.drawPast(context, x, y);
    if (this.present) this.drawPresent(context, x, y, ratioX);
    context.restore();
  }

  drawPast(context, x, y) {
    const pointOf = ({ at, lower, upper }) => ({ at, x: x(at), top: y(upper), bottom: y(lower) });
    const points = this.past.map(pointOf);
    context.fillStyle = color('band-fill');
    for (const run of runsOf(points, MAX_MISSING * this.stepMs())) {
      context.beginPath();
      run.forEach((point) => context.lineTo(point.x, point.top));
      run.reverse().forEach((point) => context.lineTo(point.x, point.bottom));
      context.closePath();
      context.fill();
    }
  }

  drawPresent(context, x, y, ratio) {
    const { from, at, last, lower, upper, expected, faded } = this.present;
    const left = x(from), right = x(at);
    if (left === null || right === null) return;
    const start = y(last), top = y(upper), bottom = y(lower), mean = y(expected), cap = 4 * ratio;

    context.beginPath();
    context.moveTo(left, start);
    context.lineTo(right, top);
    context.lineTo(right, bottom);
    context.closePath();
    context.fillStyle = color('band-fill');
    context.fill();
    context.fill(); // twice as strong as the past

    context.strokeStyle = color('band');
    context.lineWidth = Math.max(1, Math.round(ratio));
    context.setLineDash([4 * ratio, 3 * ratio]);
    context.beginPath();
    context.moveTo(left, start);
    context.lineTo(right, mean);
    context.stroke();

    context.setLineDash([]);
    context.globalAlpha = faded ? 0.4 : 1;
    context.beginPath();
    context.moveTo(right, top);
    context.lineTo(right, bottom);
    for (const end of [top, bottom]) {
      context.moveTo(right - cap, end);
      context.lineTo(right + cap, end);
    }
    context.stroke();

    context.beginPath();
    context.arc(right, mean, 3 * ratio, 0, 2 * Math.PI);
    context.fillStyle = color('band');
    context.fill();
  }
}
