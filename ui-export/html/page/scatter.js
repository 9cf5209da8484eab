// Each op as a point: measured to the right, predicted upwards, both as logarithms. On the line the
// prediction is exact, on the dashed lines it is off by a factor of two.

function scatterPoints() {
  return ops.filter((op) => op.times && op === op.same[0])
    .filter((op) => op.times.predicted > 0 && op.times.measured > 0)
    .map((op) => ({op, x: Math.log10(op.times.measured), y: Math.log10(op.times.predicted)}));
}

function powerLabel(power) {
  return mark(text.time(Math.pow(10, power)));
}

class Scatter {
  constructor(points) {
    this.points = points;
    const all = points.flatMap((p) => [p.x, p.y]);
    this.low = Math.floor(Math.min(...all) * 2) / 2;
    this.high = Math.max(Math.ceil(Math.max(...all) * 2) / 2, this.low + 1);
    this.canvas = h('canvas', {role: 'img', id: 'scatter-canvas',
      'aria-label': 'Predicted against measured time of each op; the table below has the figures'});
    this.redraw = plot(this.canvas, 340, (context, width, height) => {
      this.area = {left: 66, right: width - 30, top: 12, bottom: height - 38};
      this.draw(context);
    });
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', hideTip);
    this.canvas.addEventListener('click', (event) => {
      const point = this.nearest(event);
      if (point) change({op: point.op});
    });
  }

  x(value) {
    const {left, right} = this.area;
    return left + (value - this.low) / (this.high - this.low) * (right - left);
  }
  y(value) {
    const {top, bottom} = this.area;
    return bottom - (value - this.low) / (this.high - this.low) * (bottom - top);
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, distance = 12;
    for (const point of this.points) {
      const away = Math.hypot(this.x(point.x) - x, this.y(point.y) - y);
      if (away < distance) { best = point; distance = away; }
    }
    return best;
  }

  hover(event) {
    const point = this.nearest(event);
    if (!point) return hideTip();
    const times = point.op.times;
    showTip(event, h('b', {}, point.op.path), h('br'), point.op.phase + ' · predicted ' +
      text.time(times.predicted) + ', measured ' + text.time(times.measured) + ' (' +
      text.signedPercent(errorOf(times.predicted, times.measured)) + ')');
    return undefined;
  }

  line(context, shift, dash) {
    context.setLineDash(dash);
    context.beginPath();
    const from = this.low + Math.max(0, -shift), to = this.high - Math.max(0, shift);
    context.moveTo(this.x(from), this.y(from + shift));
    context.lineTo(this.x(to), this.y(to + shift));
    context.stroke();
    context.setLineDash([]);
  }

  frame(context) {
    const {left, right, top, bottom} = this.area;
    context.strokeStyle = colour('grid');
    context.fillStyle = colour('faint');
    context.textBaseline = 'middle';
    for (let power = Math.ceil(this.low); power <= this.high; ++power) {
      context.beginPath();
      context.moveTo(this.x(power), top);
      context.lineTo(this.x(power), bottom);
      context.moveTo(left, this.y(power));
      context.lineTo(right, this.y(power));
      context.stroke();
      context.textAlign = 'center';
      context.fillText(powerLabel(power), this.x(power), bottom + 14);
      context.textAlign = 'right';
      context.fillText(powerLabel(power), left - 8, this.y(power));
    }
    context.textAlign = 'center';
    context.fillStyle = colour('measured');
    context.fillText('measured', (left + right) / 2, bottom + 30);
    context.save();
    context.translate(10, (top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillStyle = colour('predicted');
    context.fillText('predicted', 0, 0);
    context.restore();
  }

  draw(context) {
    this.frame(context);
    context.strokeStyle = colour('faint');
    this.line(context, 0, []);
    this.line(context, Math.log10(2), [3, 4]);
    this.line(context, -Math.log10(2), [3, 4]);
    const palette = new Map();
    for (const point of this.points) {
      const shade = phaseColour(point.op.phase, palette);
      context.beginPath();
      context.arc(this.x(point.x), this.y(point.y), 3.4, 0, 2 * Math.PI);
      context.fillStyle = point.op.communication ? colour('card') : shade;
      context.strokeStyle = shade;
      context.globalAlpha = 0.85;
      context.lineWidth = 1.4;
      context.fill();
      context.stroke();
      context.globalAlpha = 1;
      context.lineWidth = 1;
      if (isSame(state.op, point.op)) {
        context.strokeStyle = colour('ink');
        context.lineWidth = 2;
        context.beginPath();
        context.arc(this.x(point.x), this.y(point.y), 6.5, 0, 2 * Math.PI);
        context.stroke();
        context.lineWidth = 1;
      }
    }
  }
}

// How well the points lie: share of the measured time by the size of the error.
function scatterFacts(points) {
  const bounds = [[0.1, 'within 10 %'], [0.25, 'within 25 %'], [1, 'within a factor 2']];
  const total = points.reduce((sum, p) => sum + p.op.times.measured, 0);
  const within = (limit) => points.filter((p) => {
    const ratio = p.op.times.predicted / p.op.times.measured;
    return Math.max(ratio, 1 / ratio) <= 1 + limit;
  });
  const rows = bounds.map(([limit, label]) => {
    const some = within(limit);
    return h('tr', {}, h('td', {}, label), h('td', {class: 'num'}, some.length + ' of ' +
      points.length), h('td', {class: 'num'}, text.percent(
      some.reduce((sum, p) => sum + p.op.times.measured, 0) / total)));
  });
  return h('div', {class: 'card pad', style: 'align-self: start'},
    h('h3', {}, 'How many ops are near'),
    h('div', {class: 'scroll'}, h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, ''),
      h('th', {class: 'num'}, 'ops'), h('th', {class: 'num'}, 'of the time'))),
    h('tbody', {}, rows))),
    h('p', {class: 'note'}, 'Filled: compute. Hollow: communication, whose time includes waiting ',
      'for the others. The colour is the phase.'));
}

function scatterBox() {
  const points = both ? scatterPoints() : [];
  if (points.length === 0) return null;
  const scatter = new Scatter(points);
  onChange((values) => { if ('op' in values) scatter.redraw(); });
  return h('div', {class: 'split wide-left'}, h('div', {class: 'card pad'},
    h('h3', {}, 'Predicted against measured, each op'), h('div', {class: 'canvas-box'},
      scatter.canvas)), scatterFacts(points));
}
