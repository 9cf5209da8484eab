// The frontier of time against memory: the fastest plan for devices with ever less memory.

// "tp 2 · cp 8 · pp 8 · recompute full": the first words of a layout that fit beside its step.
function shortWords(words) {
  const parts = words.split(' | ').map((part) => /^recompute .*,/.test(part) ?
    'recompute of parts' : part.split(',')[0].trim());
  return parts.filter((part) => /^(tp|cp|sp|pp|ep|etp|fsdp) /.test(part) ||
    /^recompute (?!none)/.test(part) || /^swap /.test(part)).join(' · ');
}

class FrontierPlot {
  // From the least memory on, so that steps fall from left to right.
  constructor(points) {
    this.points = [...points].reverse();
    const times = this.points.map((p) => p.step_s);
    this.low = Math.min(...times);
    this.high = Math.max(...times);
    this.log = this.high / this.low > 2.5;
    this.from = this.points[0].memory_bytes * 0.86;
    this.to = answer.capacity_bytes * 1.03;
    this.at = null;
    this.canvas = h('canvas', {role: 'img', id: 'frontier-canvas', tabindex: 0, 'aria-label':
      'The fastest step by the memory of a device; the table below has the figures'});
    this.redraw = plot(this.canvas, 330, (context, width, height) => {
      this.area = {left: 66, right: width - 16, top: 18, bottom: height - 40};
      this.draw(context);
    });
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', () => { hideTip(); this.choose(null); });
  }

  x(bytes) {
    const {left, right} = this.area;
    return left + (bytes - this.from) / (this.to - this.from) * (right - left);
  }
  y(seconds) {
    const top = this.area.top + 16, bottom = this.area.bottom - 32;
    const at = (s) => this.log ? Math.log(s) : s;
    const high = at(this.high) - at(this.low) || 1;
    return bottom - (at(seconds) - at(this.low)) / high * (bottom - top);
  }
  end(i) {
    return i + 1 < this.points.length ? this.points[i + 1].memory_bytes : answer.capacity_bytes;
  }

  choose(i) {
    if (this.at === i) return;
    this.at = i;
    this.redraw();
  }

  hover(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    let at = null;
    this.points.forEach((p, i) => { if (x >= this.x(p.memory_bytes) - 8) at = i; });
    this.choose(at);
    if (at === null) {
      return showTip(event, 'Below ' + text.bytes(this.points[0].memory_bytes) +
        (answer.purpose === 'train' ? ' nothing was searched for' : ' nothing fits'));
    }
    const p = this.points[at];
    return showTip(event, h('b', {}, text.seconds(p.step_s) + ' a step'), ' on devices with ' +
      text.bytes(p.memory_bytes) + ' or more', h('br'), p.words);
  }

  marks() {
    if (!this.log) return ticks(this.low, this.high, 4);
    const list = [], fine = this.high / this.low > 6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
    const last = Math.log10(this.high) + 1;
    for (let power = Math.floor(Math.log10(this.low)); power <= last; ++power) {
      for (const m of fine) list.push(m * Math.pow(10, power));
    }
    return list.filter((v) => v >= this.low * 0.9 && v <= this.high * 1.07);
  }

  frame(context) {
    const {left, right, top, bottom} = this.area;
    context.textBaseline = 'middle';
    for (const at of this.marks()) {
      context.strokeStyle = colour('grid');
      context.beginPath();
      context.moveTo(left, this.y(at));
      context.lineTo(right, this.y(at));
      context.stroke();
      context.fillStyle = colour('faint');
      context.textAlign = 'right';
      context.fillText(mark(text.seconds(at)), left - 8, this.y(at));
    }
    context.fillStyle = colour('faint');
    context.textAlign = 'center';
    const unit = 1024 ** 3;
    for (const at of ticks(this.from / unit, this.to / unit, 8)) {
      context.fillText(mark(text.bytes(at * unit)), this.x(at * unit), bottom + 15);
    }
    context.fillText('memory of a device', (left + right) / 2, bottom + 31);
    // Where nothing fits.
    const least = this.x(this.points[0].memory_bytes);
    context.fillStyle = colour('hover');
    context.fillRect(left, top, least - left, bottom - top);
    const edge = this.x(answer.capacity_bytes);
    context.strokeStyle = colour('soft');
    context.setLineDash([3, 4]);
    context.beginPath();
    context.moveTo(edge, top - 6);
    context.lineTo(edge, bottom);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = colour('soft');
    context.textAlign = 'right';
    context.fillText(answer.device + ', ' + text.bytes(answer.capacity_bytes), edge - 6, top - 4);
  }

  stairs(context) {
    context.beginPath();
    this.points.forEach((p, i) => {
      context.lineTo(this.x(p.memory_bytes), this.y(p.step_s));
      context.lineTo(this.x(this.end(i)), this.y(p.step_s));
    });
    context.strokeStyle = colour('predicted');
    context.lineWidth = 1.6;
    context.stroke();
    context.lineTo(this.x(answer.capacity_bytes), this.area.bottom);
    context.lineTo(this.x(this.points[0].memory_bytes), this.area.bottom);
    context.fillStyle = colour('predicted-soft');
    context.globalAlpha = 0.35;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1;
  }

  // Numbers of the table below; the layout too where the step is wide enough for it.
  labels(context) {
    const last = this.points.length - 1;
    let free = -Infinity;
    this.points.forEach((p, i) => {
      const x = this.x(p.memory_bytes), y = this.y(p.step_s), winner = i === last;
      context.beginPath();
      context.arc(x, y, winner || i === this.at ? 9 : 7.5, 0, 2 * Math.PI);
      context.fillStyle = colour(winner ? 'predicted' : 'card');
      context.fill();
      context.strokeStyle = colour('predicted');
      context.lineWidth = i === this.at ? 2.4 : 1.4;
      context.stroke();
      context.lineWidth = 1;
      context.textAlign = 'center';
      context.fillStyle = colour(winner ? 'card' : 'ink');
      context.font = '10px ' + colour('text');
      context.fillText(String(last - i + 1), x, y + 0.5);
      context.font = '12px ' + colour('text');
      const name = p.words === answer.winner.words ? 'winner: ' : 'fastest: ';
      const words = (winner ? name : '') + shortWords(p.words);
      const wide = context.measureText(words).width;
      if (winner && x + 14 + wide > this.area.right) {
        context.textAlign = 'right';
        context.fillStyle = colour('ink');
        context.fillText(words, this.x(answer.capacity_bytes) - 4, y + 20);
        return;
      }
      if (x + 12 < free || x + 14 + wide > this.x(this.end(i)) + (winner ? 60 : 0)) return;
      context.textAlign = 'left';
      context.fillStyle = colour(winner ? 'ink' : 'soft');
      context.fillText(words, x + 12, y - 10);
      free = x + 14 + wide;
    });
  }

  draw(context) {
    this.frame(context);
    this.stairs(context);
    this.labels(context);
  }
}

function frontierTable(points) {
  return h('div', {class: 'scroll'}, h('table', {id: 'frontier-table'}, h('thead', {}, h('tr', {},
    h('th', {class: 'num'}, ''), h('th', {class: 'num'}, 'from'), h('th', {class: 'num'}, 'step'),
    h('th', {class: 'num'}, 'slower'), h('th', {}, 'layout'))), h('tbody', {},
    points.map((p, i) => h('tr', {}, h('td', {class: 'num'}, String(i + 1)),
      h('td', {class: 'num'}, text.bytes(p.memory_bytes)),
      h('td', {class: 'num'}, text.seconds(p.step_s)),
      h('td', {class: 'num'}, i === 0 ? '' : text.signedPercent(p.step_s / points[0].step_s - 1)),
      h('td', {class: 'wrap'}, i === 0 ? h('b', {}, p.words) : p.words))))));
}

function showFrontier() {
  const points = answer.frontier;
  if (points.length === 0) {
    const root = section('frontier', 'Time against memory');
    root.append(h('p', {class: 'note'}, 'This plan carries no frontier: ', h('span',
      {class: 'mono'}, 'orrery plan --frontier'), ' searches for it.'));
    return;
  }
  const last = points[points.length - 1];
  const root = section('frontier', 'Time against memory',
    'The fastest plan on devices like these with less memory. Each step is the proved best of ' +
    'one size of memory' + (answer.purpose === 'train' ?
      ', of the listed plans (only the winner is refined)' : '') + '; between two sizes a plan ' +
    'may be a little faster than its step, never faster than the next one to the right. ' +
    (points[0].words === answer.winner.words ? '' : 'The first is the fastest; the winner is ' +
      'simpler, and cannot be told apart from it. ') +
    (points.length > 1 ? 'With ' + text.bytes(last.memory_bytes) + ' it takes ' +
      digits(last.step_s / points[0].step_s) + ' times as long.' : ''));
  const each = new FrontierPlot(points);
  root.append(h('div', {class: 'card pad'}, h('div', {class: 'canvas-box'}, each.canvas)),
    h('div', {class: 'card pad', style: 'margin-top:16px'}, frontierTable(points)));
}
