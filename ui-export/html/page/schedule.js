// The pipeline's schedule: stages downwards, the step from left to right, bubbles left empty.
const CELL_KINDS = ['forward', 'backward', 'input gradient', 'weight gradient', 'both', 'work'];
const CELL_COLOURS = ['fwd', 'bwd', 'bwd', 'bwd_weight', 'fwd', 'other'];
const STAGE_HEIGHT = 18;

class SchedulePlot {
  // From `from` to `to` of the schedule's scale.
  constructor(schedule, id, from, to) {
    this.schedule = schedule;
    this.from = from;
    this.to = to;
    this.canvas = h('canvas', {role: 'img', id, 'aria-label': 'What each of ' +
      schedule.stages + ' stages does over a step'});
    const high = Math.max(7, Math.min(STAGE_HEIGHT, 420 / schedule.rows.length));
    this.redraw = plot(this.canvas, 26 + high * schedule.rows.length + 4, (context, width) => {
      this.area = {left: 66, right: width - 10, high};
      this.draw(context);
    });
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', hideTip);
  }

  x(share) {
    const {left, right} = this.area;
    const at = (share - this.from) / (this.to - this.from);
    return left + Math.min(1, Math.max(0, at)) * (right - left);
  }
  seconds(share) { return share / this.schedule.scale * this.schedule.end_s; }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const s = Math.floor((event.clientY - box.top - 4) / this.area.high);
    const stage = this.schedule.shown[s];
    const row = this.schedule.rows[s];
    if (!row) return hideTip();
    const {left, right} = this.area;
    const at = this.from + (event.clientX - box.left - left) / (right - left) *
      (this.to - this.from);
    const i = row.at.findIndex((from, k) => at >= from && at < from + row.lasts[k]);
    const when = text.seconds(this.seconds(Math.max(0, at)));
    if (i < 0) return showTip(event, h('b', {}, 'stage ' + stage), ' waits at ' + when);
    const chunk = this.schedule.virtual_stages > 1 ? ', chunk ' + row.chunk[i] : '';
    const batch = row.micro_batch[i] < 0 ? '' : ' of micro-batch ' + row.micro_batch[i];
    return showTip(event, h('b', {}, 'stage ' + stage), ' ' + (row.kind[i] === 4 ?
      'forward of one micro-batch beside the backward of another' :
      CELL_KINDS[row.kind[i]] + batch + chunk) + ' at ' + when);
  }

  cell(context, row, i, y, high) {
    if (row.at[i] > this.to || row.at[i] + row.lasts[i] < this.from) return;
    const from = this.x(row.at[i]), wide = this.x(row.at[i] + row.lasts[i]) - from;
    const room = wide > 3 ? 1 : 0;
    if (row.kind[i] === 4) {
      context.fillStyle = colour('fwd');
      context.fillRect(from, y, wide - room, high / 2);
      context.fillStyle = colour('bwd');
      context.fillRect(from, y + high / 2, wide - room, high / 2);
      return;
    }
    context.fillStyle = this.shades[row.kind[i]];
    context.globalAlpha = row.chunk[i] % 2 === 1 ? 0.72 : 1;
    context.fillRect(from, y, wide - room, high);
    context.globalAlpha = 1;
    if (wide < 17 || high < 12 || row.micro_batch[i] < 0) return;
    context.fillStyle = colour('card');
    context.textAlign = 'center';
    context.fillText(String(row.micro_batch[i]), from + wide / 2, y + high / 2 + 0.5);
  }

  draw(context) {
    const {left, right, high} = this.area, {rows} = this.schedule;
    this.shades = CELL_COLOURS.map(colour);
    context.textBaseline = 'middle';
    const every = Math.ceil(12 / high);
    rows.forEach((row, s) => {
      const y = 4 + s * high;
      context.fillStyle = colour('hover');
      context.fillRect(left, y, right - left, high - 1);
      context.fillStyle = colour('faint');
      context.textAlign = 'right';
      context.font = '11px ' + colour('text');
      const name = 'stage ' + this.schedule.shown[s];
      if (s % every === 0) context.fillText(name, left - 8, y + high / 2);
      context.font = '10px ' + colour('text');
      row.at.forEach((_, i) => this.cell(context, row, i, y, high - 1));
    });
    const foot = 4 + rows.length * high + 11;
    context.fillStyle = colour('faint');
    context.font = '12px ' + colour('text');
    const unit = this.seconds(1);
    for (const at of ticks(this.from * unit, this.to * unit, right - left > 700 ? 8 : 4)) {
      const x = this.x(at / unit);
      context.textAlign = x < left + 20 ? 'left' : x > right - 20 ? 'right' : 'center';
      context.fillText(at < unit ? '0' : mark(text.seconds(at)), x, foot);
    }
  }
}

function showSchedule() {
  const schedule = data.schedule;
  if (!schedule) return;
  const root = section('schedule', 'The pipeline', schedule.stages + ' stages' +
    (schedule.virtual_stages > 1 ? ' of ' + schedule.virtual_stages + ' chunks of layers' : '') +
    ', ' + text.plural(schedule.micro_batches, 'micro-batch').replace('batchs', 'batches') + ', ' +
    schedule.name.replaceAll('_', ' ') + ': what each stage computes until the last backward. ' +
    'Empty is waiting, ' + text.percent(schedule.idle_share) + ' of all stages together. ' +
    'Gradients of the data axis and the update come after it.');
  const whole = new SchedulePlot(schedule, 'schedule-canvas', 0, schedule.scale);
  const kinds = new Set(schedule.rows.flatMap((row) => row.kind));
  const pairs = [];
  if (kinds.has(0) || kinds.has(4)) pairs.push(['fwd', 'forward']);
  if (kinds.has(1) || kinds.has(2) || kinds.has(4)) {
    pairs.push(['bwd', kinds.has(2) ? 'backward, of the input' : 'backward']);
  }
  if (kinds.has(3)) pairs.push(['bwd_weight', 'backward, of the weights']);
  if (kinds.has(5)) pairs.push(['other', 'several cells with no wait between']);
  pairs.push(['hover', 'waiting']);
  const box = (each) => h('div', {class: 'canvas-box', style: 'margin-top:8px'}, each.canvas);
  const card = h('div', {class: 'card pad'}, legend(pairs), box(whole));
  const room = closeUp(schedule);
  if (room !== null) {
    card.append(h('div', {class: 'split', style: 'margin-top:12px'}, [
      ['How it fills', 'schedule-begin', 0, room],
      ['How it drains', 'schedule-end', schedule.scale - room, schedule.scale]].map(
      ([title, id, from, to]) => h('div', {}, h('h3', {}, title),
        box(new SchedulePlot(schedule, id, from, to))))));
  }
  root.append(card);
}

// Where cells are too many to be told apart: how much of the step is shown of its ends.
function closeUp(schedule) {
  const cells = Math.max(...schedule.rows.map((row) => row.at.length));
  const WIDE = 120, CLOSE = 40;  // cells of a row that can be told apart; that a close-up shows
  return cells > WIDE ? Math.round(schedule.scale * CLOSE / cells) : null;
}
