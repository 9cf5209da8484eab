// Beside the timeline: everything known of the chosen op; with none chosen, how to read and use it.

function phasesShown() {
  const there = new Set();
  for (const side of [predicted, measured]) {
    if (side) side.breakdown.phases.forEach((phase) => there.add(phase));
  }
  return [...there];
}

function helpDetails() {
  const key = (name) => h('kbd', {}, name);
  return [h('h3', {}, 'How to read it'),
    h('div', {class: 'legend'}, phasesShown().map((phase) =>
      h('span', {}, h('i', {style: 'background: var(--' + phase + ', var(--other))'}), phase)),
    h('span', {}, h('i', {class: 'hatched'}), 'hatched: communication'),
    predicted && h('span', {class: 'key predicted'}, 'sim: predicted; dashed: its end'),
    measured && h('span', {class: 'key measured'}, 'run: measured; dashed: its end')),
    h('p', {class: 'note help'},
      'Wheel: zoom. Drag: move. Click: choose an op. With the keyboard: ', key('←'), ' ',
      key('→'), ' next op, ', key('↑'), ' ', key('↓'), ' row, ', key('+'), ' ', key('−'),
      ' zoom, ', key('Shift'), '+', key('→'), ' move, ', key('0'), ' all, ', key('Esc'),
      ' none.')];
}

function spanOf(side, step, rank, op) {
  const ranks = stepOf(side, step);
  if (!ranks || ranks.length === 0) return null;
  const row = ranks.find((r) => r.rank === rank) || standIn(ranks, {rank, role: -1});
  const span = row.spans.find((s) => isSame(s.op, op));
  return span ? {row, span} : null;
}

function sideFacts(title, who, found) {
  if (!found) return null;
  const {row, span} = found, wire = row.wire.get(span.op.index);
  return [h('h3', {class: 'key ' + who, style: 'margin-top:10px'}, title),
    h('dl', {}, fact('takes', text.time(span.end - span.start)),
      fact('begins at', text.time(span.start)),
      span.count > 1 && fact('holds', span.count + ' ops, busy ' + text.time(span.busy)),
      wire && fact('waited', text.time(wire.wait)), wire && fact('sent', text.bytes(wire.sent)),
      wire && fact('received', text.bytes(wire.received)))];
}

// " on node, device" where the run told.
function placeOf(rank) {
  const known = main.ranks.find((row) => row.rank === rank);
  const words = known ? [known.node, known.device].filter((word) => word !== '') : [];
  return words.length > 0 ? ' on ' + words.join(', ') : '';
}

function opDetails(op, rank, choose) {
  const before = spanOf(predicted, predictedStep, rank, op);
  const after = spanOf(measured, state.step, rank, op);
  const error = before && after ?
    errorOf(before.span.end - before.span.start, after.span.end - after.span.start) : null;
  const link = (other) => h('button', {class: 'link', type: 'button', onclick: () => choose(other)},
    other.path + ' · ' + other.phase);
  return [h('h3', {}, op.path),
    h('dl', {}, fact('phase', op.phase), fact('kind', op.kind.replaceAll('_', ' ')),
      fact('lane', op.lane), fact('micro-batch', String(op.microBatch)),
      op.chunk > 0 && fact('chunk', String(op.chunk)), fact('group', op.group),
      fact('unit', op.unit),
      fact('writes', op.bytes === null ? 'depends on data' : text.bytes(op.bytes)),
      fact('rank', rank + placeOf(rank))),
    sideFacts('predicted', 'predicted', before),
    sideFacts('measured, step ' + state.step, 'measured', after),
    error !== null && h('p', {style: 'margin:8px 0 0'}, 'error ',
      h('b', {class: errorClass(error)}, text.signedPercent(error))),
    op.deps.length > 0 && [h('h3', {style: 'margin-top:10px'}, 'waits for'),
      op.deps.slice(0, 8).map((dep) => link(ops[dep])),
      op.deps.length > 8 && h('p', {class: 'note'}, 'and ' + (op.deps.length - 8) + ' more')]];
}
