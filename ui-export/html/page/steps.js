// Step after step: time against the prediction, loss, and other numbers that the steps recorded.

class StepPlot {
  // series: values by step, null where there is none. band: {low, value, high} of a prediction.
  constructor(title, series, format, band) {
    this.steps = measured.steps.step;
    this.series = series;
    this.format = format;
    this.band = band;
    this.canvas = h('canvas', {role: 'img', 'aria-label': title + ' by step, from ' +
      format(series.find((v) => v !== null)) + ' to ' +
      format(series.findLast((v) => v !== null))});
    this.redraw = plot(this.canvas, 190, (context, width, height) => {
      this.area = {left: 66, right: width - 14, top: 10, bottom: height - 26};
      this.draw(context);
    });
    this.canvas.addEventListener('pointermove', (event) => {
      const i = this.nearest(event);
      if (this.series[i] === null) return hideTip();
      return showTip(event, h('b', {}, 'step ' + this.steps[i]), ' ' + format(this.series[i]));
    });
    this.canvas.addEventListener('pointerleave', hideTip);
    this.canvas.addEventListener('click', (event) => {
      const step = this.steps[this.nearest(event)];
      if (timelineSteps(measured).includes(step)) change({step});
    });
  }

  range() {
    const values = this.series.filter((v) => v !== null);
    if (this.band) values.push(this.band.value);
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const room = (high - low || Math.abs(high) || 1) * 0.12;
    return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
  }

  x(i) {
    const {left, right} = this.area, last = Math.max(1, this.steps.length - 1);
    return left + i / last * (right - left);
  }

  nearest(event) {
    const at = event.clientX - this.canvas.getBoundingClientRect().left;
    const {left, right} = this.area;
    const i = Math.round((at - left) / (right - left) * (this.steps.length - 1));
    return Math.min(this.steps.length - 1, Math.max(0, i));
  }

  frame(context, low, high, y) {
    const {left, right, bottom} = this.area;
    context.textBaseline = 'middle';
    for (const mark of ticks(low, high, 4)) {
      context.strokeStyle = colour('grid');
      context.beginPath();
      context.moveTo(left, y(mark));
      context.lineTo(right, y(mark));
      context.stroke();
      context.fillStyle = colour('faint');
      context.textAlign = 'right';
      context.fillText(this.format(mark), left - 8, y(mark));
    }
    context.textAlign = 'center';
    const every = Math.max(1, Math.ceil(this.steps.length / 10));
    this.steps.forEach((step, i) => {
      if (i % every === 0) context.fillText(String(step), this.x(i), bottom + 15);
    });
  }

  draw(context) {
    const {left, right, top, bottom} = this.area, [low, high] = this.range();
    const y = (value) => bottom - (value - low) / (high - low) * (bottom - top);
    const within = (value) => Math.min(bottom, Math.max(top, y(value)));
    if (this.band && this.band.high > this.band.low) {
      context.fillStyle = colour('predicted-soft');
      context.globalAlpha = 0.55;
      context.fillRect(left, within(this.band.high), right - left,
        within(this.band.low) - within(this.band.high));
      context.globalAlpha = 1;
    }
    this.frame(context, low, high, y);
    if (this.band) {
      context.strokeStyle = colour('predicted');
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(left, y(this.band.value));
      context.lineTo(right, y(this.band.value));
      context.stroke();
    }
    this.curve(context, y);
  }

  curve(context, y) {
    context.strokeStyle = context.fillStyle = colour('measured');
    context.lineWidth = 1.6;
    context.beginPath();
    let open = false;
    this.series.forEach((value, i) => {
      if (value === null) { open = false; return; }
      if (open) context.lineTo(this.x(i), y(value));
      else context.moveTo(this.x(i), y(value));
      open = true;
    });
    context.stroke();
    context.lineWidth = 1;
    this.series.forEach((value, i) => {
      if (value === null || this.steps.length > 120) return;
      context.beginPath();
      context.arc(this.x(i), y(value), this.steps[i] === state.step ? 5 : 2.6, 0, 2 * Math.PI);
      context.fill();
    });
  }
}

function showSteps() {
  if (!measured || measured.steps.step.length < 2) return;
  const steps = measured.steps;
  const band = predicted && predicted.headline.step_s ? {value: predicted.headline.step_s,
    low: data.interval ? data.interval.low_s : 0,
    high: data.interval ? data.interval.high_s : 0} : null;
  const plain = (value) => value === null ? '–' : Math.abs(value) < 0.001 && value !== 0 ?
    value.toExponential(1) : digits(value);
  const rows = [['Step time', steps.seconds, text.seconds, band], ['Loss', steps.loss, plain, null],
    ['Gradient norm', steps.grad_norm, plain, null],
    ['Balance loss', steps.balance_loss, plain, null],
    ['Router z loss', steps.z_loss, plain, null], ['Learning rate', steps.lr, plain, null]];
  // What never changes, or was never recorded, has no curve.
  const shown = rows.filter(([, series], i) => {
    const known = series.filter((value) => value !== null);
    return known.length > 1 && (i < 2 || known.some((value) => value !== known[0]));
  });
  const root = section('steps', 'Steps', 'A click on a step chooses it for the timeline and the ' +
    'breakdown.' + (band ? ' The line is the prediction' +
      (data.interval ? ', the band its interval.' : '.') : ''));
  const boxes = shown.map(([title, series, format, of]) => {
    const each = new StepPlot(title, series, format, of);
    onChange((values) => { if ('step' in values) each.redraw(); });
    return h('div', {class: 'card pad'}, h('h3', {}, title),
      h('div', {class: 'canvas-box'}, each.canvas));
  });
  root.append(h('div', {class: 'split'}, boxes));
}
