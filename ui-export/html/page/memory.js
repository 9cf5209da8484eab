// Memory by class: stacked over the step, predicted beside measured to one scale, and the peaks.

// A rank's levels, summed from differences: [{name, levels}], the host's left out.
function levelsOf(memory, rank) {
  const row = memory.ranks.find((r) => r.rank === rank) || memory.ranks[0];
  return memory.classes.map((name, c) => {
    let sum = 0;
    return {name, levels: row.bytes[c].map((difference) => (sum += difference))};
  }).filter(({name, levels}) => name !== memory.host && levels.some((level) => level !== 0));
}

function totalsOf(classes) {
  return classes[0].levels.map((_, i) => classes.reduce((sum, c) => sum + c.levels[i], 0));
}

// The live bytes, one area on the other, from left to right; steps, since memory changes at once.
class MemoryPlot {
  constructor(who, memory, scale) {
    this.who = who;
    this.memory = memory;
    this.scale = scale;
    this.canvas = h('canvas', {role: 'img', 'aria-label': who + ' memory by class over the step; ' +
      'the table below has the peaks'});
    this.show(memory.ranks[0].rank);
    this.redraw = plot(this.canvas, 230, (context, width, height) => {
      this.area = {left: 66, right: width - 8, top: 10, bottom: height - 24};
      this.draw(context);
    });
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', hideTip);
  }

  show(rank) {
    this.classes = levelsOf(this.memory, rank);
    if (this.redraw) this.redraw();
  }

  slice(x) {
    const {left, right} = this.area, points = this.classes[0].levels.length;
    return Math.min(points - 1, Math.max(0, Math.floor((x - left) / (right - left) * points)));
  }

  hover(event) {
    if (this.classes.length === 0) return;
    const at = this.slice(event.clientX - this.canvas.getBoundingClientRect().left);
    const rows = this.classes.filter((c) => c.levels[at] !== 0)
      .map((c) => [h('br'), c.name.replaceAll('_', ' ') + ' ' + text.bytes(c.levels[at])]);
    const time = (at + 0.5) / this.classes[0].levels.length * this.memory.end;
    showTip(event, h('b', {}, text.bytes(totalsOf(this.classes)[at])), ' at ' + text.time(time),
      rows.reverse());
  }

  frame(context, most) {
    const {left, right, top, bottom} = this.area;
    context.textBaseline = 'middle';
    const unit = Math.pow(1024, Math.max(0, Math.floor(Math.log2(most) / 10)));
    for (const at of ticks(0, most / unit, 4)) {
      const y = bottom - at * unit / most * (bottom - top);
      context.strokeStyle = colour('grid');
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(right, y);
      context.stroke();
      context.fillStyle = colour('faint');
      context.textAlign = 'right';
      context.fillText(at === 0 ? '0' : mark(text.bytes(at * unit)), left - 8, y);
    }
    for (const at of ticks(0, this.memory.end, 5)) {
      const x = left + at / Math.max(1, this.memory.end) * (right - left);
      context.textAlign = x > right - 20 ? 'right' : 'center';
      context.fillText(at === 0 ? '0' : mark(text.time(at)), x, bottom + 14);
    }
  }

  draw(context) {
    const {left, right, top, bottom} = this.area, most = this.scale();
    this.frame(context, most);
    if (this.classes.length === 0) return;
    const points = this.classes[0].levels.length, base = new Array(points).fill(0);
    const x = (i) => left + i / points * (right - left);
    const y = (bytes) => bottom - bytes / most * (bottom - top);
    for (const {name, levels} of this.classes) {
      context.fillStyle = colour(classColour(name));
      context.beginPath();
      context.moveTo(x(0), y(base[0]));
      for (let i = 0; i < points; ++i) {
        context.lineTo(x(i), y(base[i] + levels[i]));
        context.lineTo(x(i + 1), y(base[i] + levels[i]));
      }
      for (let i = points - 1; i >= 0; --i) {
        context.lineTo(x(i + 1), y(base[i]));
        context.lineTo(x(i), y(base[i]));
      }
      context.fill();
      levels.forEach((level, i) => { base[i] += level; });
    }
    context.strokeStyle = colour(this.who);
    context.lineWidth = 1.5;
    context.beginPath();
    base.forEach((bytes, i) => {
      context.lineTo(x(i), y(bytes));
      context.lineTo(x(i + 1), y(bytes));
    });
    context.stroke();
    context.lineWidth = 1;
  }
}

function peakTable() {
  const before = predicted && predicted.peaks, after = measured && measured.peaks;
  if (!before && !after) return null;
  const names = [...new Set([...Object.keys(before || {}), ...Object.keys(after || {})])]
    .filter((name) => name !== 'total');
  if ((before || after).total !== undefined) names.push('total');
  const both = before && after;
  const cells = (name) => [before && h('td', {class: 'num'}, text.bytes(before[name] ?? null)),
    after && h('td', {class: 'num'}, text.bytes(after[name] ?? null))];
  return h('div', {class: 'scroll'}, h('table', {}, h('thead', {}, h('tr', {},
    h('th', {}, 'highest of any rank and step'), before && h('th', {class: 'num'}, 'predicted'),
    after && h('th', {class: 'num'}, 'measured'), both && h('th', {class: 'num'}, 'error'))),
  h('tbody', {}, names.map((name) => {
    const error = both ? errorOf(before[name] ?? null, after[name] ?? null) : null;
    return h('tr', {}, h('td', {}, h('span', {class: 'legend'}, h('span', {},
      name !== 'total' && h('i', {style: 'background: var(--' + classColour(name) + ')'}),
      name.replaceAll('_', ' ')))), cells(name),
    both && h('td', {class: 'num ' + errorClass(error)}, text.signedPercent(error)));
  }))));
}

function showMemory() {
  const sides = [['predicted', predicted], ['measured', measured]]
    .filter(([, side]) => side && side.memory);
  const peaks = peakTable();
  if (sides.length === 0 && !peaks) return;
  const root = section('memory', 'Memory', sides.length > 0 ?
    'Live buffers by class over the step. Each point is the moment of the highest total in its ' +
    'slice of time, so no peak is lost. What an op needs only while it runs has no record over ' +
    'time: it is in the peaks below.' : 'There is no record of memory over time: peaks only.');
  const list = [];
  const scale = () => Math.max(1, ...list.flatMap((p) =>
    p.classes.length > 0 ? totalsOf(p.classes) : [0])) * 1.04;
  for (const [who, side] of sides) list.push(new MemoryPlot(who, side.memory, scale));
  const ranks = sides.length > 0 ? sides[sides.length - 1][1].memory.ranks.map((r) => r.rank) : [];
  const select = h('select', {onchange: () => {
    for (const each of list) each.show(Number(select.value));
    for (const each of list) each.redraw();
  }}, ranks.map((rank) => h('option', {value: rank}, String(rank))));
  if (ranks.length > 1) root.append(h('div', {class: 'tools'}, h('label', {}, 'Rank', select)));
  root.append(h('div', {class: list.length > 1 ? 'split' : ''}, list.map((each) =>
    h('div', {class: 'card pad'}, h('h3', {class: 'key ' + each.who}, each.who +
      (each.who === 'measured' ? ', step ' + each.memory.step : '')),
    h('div', {class: 'canvas-box'}, each.canvas)))));
  if (peaks) root.append(h('div', {class: 'card pad', style: 'margin-top:16px'}, peaks));
}
