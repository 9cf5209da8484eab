// How evenly the router spread rows: a map of layers and experts, shaded by load over the mean.

function expertFacts(experts) {
  return experts.layers.map((layer, i) => {
    const rows = experts.rows[i], sum = rows.reduce((a, b) => a + b, 0);
    const mean = sum / rows.length, most = Math.max(...rows);
    return {layer, mean, most, busiest: rows.indexOf(most),
      idle: rows.filter((r) => r === 0).length, ratio: mean > 0 ? most / mean : 0};
  });
}

class ExpertMap {
  constructor(experts) {
    this.experts = experts;
    this.facts = expertFacts(experts);
    this.columns = Math.max(...experts.rows.map((row) => row.length));
    this.canvas = h('canvas', {role: 'img', class: 'expert-canvas',
      'aria-label': 'Rows an expert received, by layer; the table beside it has the extremes'});
    const line = Math.max(5, Math.min(26, Math.floor(420 / experts.layers.length)));
    this.line = line;
    plot(this.canvas, experts.layers.length * line + 26, (context, width) => {
      this.left = 70;
      this.cell = (width - this.left - 4) / this.columns;
      this.draw(context);
    });
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', hideTip);
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left - this.left) / this.cell);
    const r = Math.floor((event.clientY - box.top) / this.line);
    const row = this.experts.rows[r];
    if (!row || c < 0 || c >= row.length) return hideTip();
    const wide = this.experts.experts_a_column, first = c * wide;
    showTip(event, h('b', {}, 'layer ' + this.experts.layers[r] + ', ' + (wide > 1 ?
      'experts ' + first + ' to ' + (first + wide - 1) : 'expert ' + first)), h('br'),
    text.plural(row[c], 'row') + ', ' + (row[c] / this.facts[r].mean).toFixed(2) +
      ' times the mean of its layer');
    return undefined;
  }

  // No load is the paper, the mean a middle shade, twice the mean and more the full colour.
  draw(context) {
    const shade = colour(measured ? 'measured' : 'predicted');
    this.experts.rows.forEach((row, r) => row.forEach((value, c) => {
      const share = this.facts[r].mean > 0 ? value / this.facts[r].mean : 0;
      context.globalAlpha = 0.05 + 0.95 * Math.min(1, share / 2.5);
      context.fillStyle = shade;
      const gap = this.cell > 6 ? 1 : 0;
      context.fillRect(this.left + c * this.cell, r * this.line, this.cell - gap,
        this.line - (this.line > 8 ? 1 : 0));
    }));
    context.globalAlpha = 1;
    context.fillStyle = colour('faint');
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    const every = Math.ceil(14 / this.line);
    this.experts.layers.forEach((layer, r) => {
      if (r % every === 0) context.fillText('layer ' + layer, this.left - 8, (r + 0.5) * this.line);
    });
    context.textAlign = 'center';
    const step = Math.max(1, Math.ceil(this.columns / 16));
    for (let c = 0; c < this.columns; c += step) {
      context.fillText(String(c * this.experts.experts_a_column), this.left + (c + 0.5) * this.cell,
        this.experts.rows.length * this.line + 14);
    }
  }
}

function showExperts() {
  const side = measured && measured.experts ? measured : predicted && predicted.experts ?
    predicted : null;
  if (!side) return;
  const experts = side.experts, who = side === measured ? 'Recorded' : 'Drawn for the simulation';
  const root = section('experts', 'Expert load', who + ': rows that each expert received in step ' +
    experts.step + ', over its micro-batches and the ' + text.plural(experts.ranks, 'rank') +
    ' that the trace holds. Darker is busier; an even load is one shade.');
  const map = new ExpertMap(experts);
  const worst = [...map.facts].sort((a, b) => b.ratio - a.ratio).slice(0, 8);
  const table = h('table', {}, h('thead', {}, h('tr', {}, ['layer', 'busiest expert', 'its rows',
    'over the mean', 'without a row'].map((name) => h('th', {class: 'num'}, name)))),
  h('tbody', {}, worst.map((fact) => h('tr', {}, [fact.layer,
    fact.busiest * experts.experts_a_column, text.count(fact.most), fact.ratio.toFixed(2) + ' ×',
    fact.idle].map((value) => h('td', {class: 'num'}, String(value)))))));
  root.append(h('div', {class: 'split'}, h('div', {class: 'card pad'},
    h('h3', {}, 'Experts from left to right, layers from top to bottom'),
    h('div', {class: 'canvas-box'}, map.canvas)),
  h('div', {class: 'card pad'}, h('h3', {}, 'The least even layers'),
    h('div', {class: 'scroll'}, table))));
}
