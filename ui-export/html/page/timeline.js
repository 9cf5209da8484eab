// The timeline's section: its tools, its canvas, and what pointer, wheel and keys do to it.

function defaultRanks() {
  const ranks = (stepOf(measured, state.step) || stepOf(predicted, predictedStep) || [])
    .map((r) => r.rank);
  return new Set(ranks.slice(0, 4));
}

class Timeline {
  constructor() {
    this.scene = new Scene();
    this.ranks = defaultRanks();
    this.cursor = null;  // {row, span}: what was chosen last
    this.canvas = h('canvas', {id: 'timeline-canvas', tabindex: 0, role: 'application',
      'aria-label': 'Timeline of a step. Arrow keys move from op to op.'});
    this.box = h('div', {class: 'card canvas-box tall'}, this.canvas);
    this.details = h('aside', {class: 'card pad details', id: 'details', 'aria-live': 'polite'});
    this.found = h('span', {class: 'note', style: 'margin:0', id: 'found'});
    this.scene.build(state.step, this.ranks);
    this.redraw = plot(this.canvas, () => this.scene.height, (context, width, height) => {
      this.width = width;
      drawScene(context, this.scene, width, height);
    });
    this.listen();
  }

  choose(op, rank) {
    const found = op && this.scene.find(op, rank);
    this.cursor = found || null;
    if (found) this.reveal(found.span);
    change({op: op || null});
  }

  // Another part of the page chose an op: it becomes the cursor, and is brought into view.
  follow() {
    if (!state.op) this.cursor = null;
    else if (!this.cursor || !isSame(this.cursor.span.op, state.op)) {
      this.cursor = this.scene.find(state.op);
      if (this.cursor) this.reveal(this.cursor.span);
    }
    this.redraw();
    this.showDetails();
  }

  reveal(span) {
    if (span.end >= this.scene.from && span.start <= this.scene.to) return;
    const half = (this.scene.to - this.scene.from) / 2, middle = (span.start + span.end) / 2;
    this.scene.look(middle - half, middle + half);
  }

  showDetails() {
    const rank = this.cursor ? this.cursor.row.rank : [...this.ranks][0];
    this.details.replaceChildren(...(state.op ?
      opDetails(state.op, rank, (op) => this.choose(op, rank)) : helpDetails())
      .flat(Infinity).filter(Boolean));
  }

  search(words) {
    state.search = words;
    const wanted = words.trim().toLowerCase();
    const count = wanted === '' ? 0 : this.scene.rows.reduce((sum, row) =>
      sum + row.spans.filter((s) => s.op.path.toLowerCase().includes(wanted)).length, 0);
    this.found.textContent = wanted === '' ? '' : text.plural(count, 'span');
    this.redraw();
    return count;
  }

  listen() {
    const canvas = this.canvas;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener('wheel', (event) => {
      const [x] = place(event);
      if (event.deltaX !== 0 && Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        this.scene.pan(event.deltaX / 800);
      } else if (event.deltaY > 0 && this.scene.isWhole()) {
        return;  // nothing to zoom out of: the page scrolls
      } else {
        this.scene.zoom(Math.exp(event.deltaY / 400), this.scene.at(x, this.width));
      }
      event.preventDefault();
      this.redraw();
    }, {passive: false});
    let drag = null;
    canvas.addEventListener('pointerdown', (event) => {
      drag = {x: event.clientX, from: this.scene.from, to: this.scene.to, moved: false};
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (drag) this.drag(drag, event);
      else this.hover(event, ...place(event));
    });
    canvas.addEventListener('pointerup', (event) => {
      const moved = drag && drag.moved;
      drag = null;
      canvas.classList.remove('dragging');
      if (moved) return;
      const hit = this.scene.hit(...place(event), this.width);
      this.cursor = hit;
      change({op: hit ? hit.span.op : null});
    });
    canvas.addEventListener('pointerleave', hideTip);
    canvas.addEventListener('keydown', (event) => this.key(event));
  }

  drag(drag, event) {
    const length = drag.to - drag.from;
    const shift = (drag.x - event.clientX) / (this.width - GUTTER) * length;
    if (Math.abs(drag.x - event.clientX) > 3) drag.moved = true;
    if (!drag.moved) return;
    hideTip();
    this.canvas.classList.add('dragging');
    this.scene.look(drag.from + shift, drag.to + shift);
    this.redraw();
  }

  hover(event, x, y) {
    const hit = this.scene.hit(x, y, this.width);
    if (!hit) return hideTip();
    const {row, span} = hit, times = span.op.times;
    showTip(event, h('b', {}, span.count > 1 ? span.count + ' ops, the longest ' + span.op.path :
      span.op.path), h('br'),
    span.op.phase + ' · ' + span.op.kind.replaceAll('_', ' ') + ' · ' +
      (row.who === 'predicted' ? 'predicted ' : 'measured ') + text.time(span.end - span.start),
    both && times && [h('br'), 'over the run: predicted ' + text.time(times.predicted) +
      ', measured ' + text.time(times.measured)]);
    return undefined;
  }

  key(event) {
    const scene = this.scene, middle = (scene.from + scene.to) / 2;
    const sideways = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    const upright = {ArrowUp: -1, ArrowDown: 1}[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (sideways && event.shiftKey) scene.pan(0.2 * sideways);
    else if (sideways) this.walk(sideways);
    else if (upright) this.climb(upright);
    else if (event.key === '+' || event.key === '=') scene.zoom(0.7, this.focusTime(middle));
    else if (event.key === '-') scene.zoom(1 / 0.7, this.focusTime(middle));
    else if (event.key === '0') scene.fit();
    else if (event.key === 'Escape') { this.cursor = null; change({op: null}); }
    else return;
    event.preventDefault();
    this.redraw();
  }

  focusTime(fallback) {
    return this.cursor ? (this.cursor.span.start + this.cursor.span.end) / 2 : fallback;
  }

  walk(by) {
    const row = this.cursor ? this.cursor.row : this.scene.rows[0];
    if (!row || row.spans.length === 0) return;
    const at = this.cursor ? row.spans.indexOf(this.cursor.span) + by : 0;
    this.settle(row, row.spans[Math.min(Math.max(at, 0), row.spans.length - 1)]);
  }

  climb(by) {
    const rows = this.scene.rows.filter((row) => row.spans.length > 0);
    if (rows.length === 0) return;
    const at = this.cursor ? rows.indexOf(this.cursor.row) + by : 0;
    const row = rows[Math.min(Math.max(at, 0), rows.length - 1)];
    const time = this.focusTime(this.scene.from);
    const nearest = row.spans.reduce((best, span) =>
      Math.abs((span.start + span.end) / 2 - time) < Math.abs((best.start + best.end) / 2 - time) ?
        span : best);
    this.settle(row, nearest);
  }

  settle(row, span) {
    this.cursor = {row, span};
    this.reveal(span);
    change({op: span.op});
  }

  stepTool() {
    const steps = timelineSteps(measured);
    if (steps.length < 2) return null;
    const time = new Map(measured.steps.step.map((s, i) => [s, measured.steps.seconds[i]]));
    const select = h('select', {id: 'step', onchange: () => change({step: Number(select.value)})},
      steps.map((step) => h('option', {value: step, selected: step === state.step},
        step + (time.has(step) ? '  (' + text.seconds(time.get(step)) + ')' : '') +
        (step === measured.default_step ? ', median' : ''))));
    onChange((values) => { if ('step' in values) select.value = String(state.step); });
    return h('label', {}, 'Step', select);
  }

  rankTool() {
    const all = (stepOf(measured, state.step) || stepOf(predicted, predictedStep) || [])
      .map((r) => r.rank);
    if (all.length < 2) return null;
    const buttons = all.map((rank) => {
      const button = h('button', {type: 'button', 'aria-pressed': String(this.ranks.has(rank)),
        onclick: () => {
          if (this.ranks.has(rank) && this.ranks.size > 1) this.ranks.delete(rank);
          else this.ranks.add(rank);
          button.setAttribute('aria-pressed', String(this.ranks.has(rank)));
          this.rebuild();
        }}, String(rank));
      return button;
    });
    return h('span', {class: 'label', role: 'group', 'aria-label': 'Ranks'}, 'Ranks',
      h('span', {class: 'group'}, buttons));
  }

  rebuild() {
    this.scene.build(state.step, this.ranks);
    if (this.cursor) this.cursor = this.scene.find(this.cursor.span.op, this.cursor.row.rank);
    this.redraw();
    this.showDetails();
  }
}

function showTimeline() {
  const sides = [predicted, measured].filter((side) => side && side.timeline.steps.length > 0);
  if (sides.length === 0) return null;
  const timeline = new Timeline();
  const root = section('timeline', 'Timeline');
  const zoom = (factor) => () => {
    timeline.scene.zoom(factor, timeline.focusTime((timeline.scene.from + timeline.scene.to) / 2));
    timeline.redraw();
  };
  const search = h('input', {type: 'search', id: 'search', placeholder: 'layer.3/moe',
    'aria-label': 'Find ops by path', oninput: () => timeline.search(search.value)});
  root.append(h('div', {class: 'tools'}, timeline.stepTool(), timeline.rankTool(),
    h('label', {}, 'Find', search), timeline.found,
    h('span', {class: 'group end'},
      h('button', {type: 'button', onclick: zoom(0.6), 'aria-label': 'Zoom in'}, '+'),
      h('button', {type: 'button', onclick: zoom(1 / 0.6), 'aria-label': 'Zoom out'}, '−'),
      h('button', {type: 'button', onclick: () => { timeline.scene.fit(); timeline.redraw(); }},
        'All'))),
  h('div', {class: 'split wide-left'}, timeline.box, timeline.details));
  timeline.showDetails();
  onChange((values) => {
    if ('step' in values) timeline.rebuild();
    if ('op' in values) timeline.follow();
  });
  return timeline;
}
