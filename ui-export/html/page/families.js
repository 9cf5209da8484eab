// The winner and the best of each other family: their steps as stacked bars on one axis, with the
// interval of each prediction.
const TERM_COLOURS = {
  compute: 'compute', forward: 'fwd', backward: 'bwd', recompute: 'recompute', optimizer: 'opt',
  host: 'term-host', tensor: 'term-tensor', context: 'term-context', experts: 'term-experts',
  data: 'term-data', bubble: 'term-wait', waiting: 'term-wait', fixed: 'm8',
  stragglers: 'term-late', 'exposed gathers and reductions': 'term-data',
  'exposed expert exchanges': 'term-experts', 'exposed sequence exchanges': 'term-context',
  'exposed copies to the host': 'term-host', 'exposed copies from the host': 'term-late',
};

function termColour(name) { return TERM_COLOURS[name] || 'other'; }

// The axis ends a little beyond the slowest family, but not far beyond the winner, or a family that
// takes ten times as long would leave nothing to see of the others.
function familyScale(rows) {
  const winner = answer.winner, room = 2.5 * winner.step_s;
  const ends = rows.filter((row) => row.step_s).map((row) => Math.max(row.p90_s, row.step_s));
  return Math.min(room, Math.max(...ends)) * 1.02;
}

function familyBar(row, scale) {
  const share = (seconds) => (100 * Math.min(1, seconds / scale)).toFixed(3) + '%';
  let at = 0;
  const terms = row.terms.length > 0 ? row.terms : [{name: 'step', seconds: row.step_s}];
  const pieces = terms.filter((term) => term.seconds > 0).map((term) => {
    const from = Math.min(scale, at), to = Math.min(scale, at + term.seconds);
    at += term.seconds;
    return h('i', {style: 'width:' + (100 * (to - from) / scale).toFixed(3) +
      '%;background:var(--' + termColour(term.name) + ')',
    onpointermove: (event) => showTip(event, h('b', {}, term.name), ' ' +
      text.seconds(term.seconds) + ', ' + text.percent(term.seconds / row.step_s)),
    onpointerleave: hideTip});
  });
  const whisker = row.p10_s < scale && h('span', {class: 'whisker' +
    (row.p90_s > scale ? ' open' : ''), style: 'left:' + share(row.p10_s) + ';right:' +
    (100 - 100 * Math.min(1, row.p90_s / scale)).toFixed(3) + '%'});
  return h('div', {class: 'family-bar', role: 'img', 'aria-label': row.family + ': ' +
    text.seconds(row.step_s)}, h('div', {class: 'stack' + (row.step_s > scale ? ' torn' : '')},
    pieces), whisker);
}

function familyRow(row, scale, best) {
  const slower = row === best ? '' : text.signedPercent(row.step_s / best.step_s - 1);
  const head = h('div', {class: 'family-name'}, h('b', {}, row.family),
    h('span', {class: 'small'}, row.words));
  if (!row.fits) {
    return [head, h('div', {class: 'family-bar none'}, row.step_s ?
      'does not fit: ' + row.lost_by : row.lost_by), h('span', {class: 'num'}, '–'),
    h('span', {class: 'num'}, '')];
  }
  const why = row !== best && h('p', {class: 'small'}, 'loses by ' + row.lost_by +
    (row.proved ? '' : ' (the best that was found of it)'));
  return [head, h('div', {}, familyBar(row, scale), why),
    h('span', {class: 'num'}, text.seconds(row.step_s)), h('span', {class: 'num'}, slower)];
}

function familyAxis(scale) {
  return h('div', {class: 'family-axis'}, ticks(0, scale, 6).map((at) =>
    h('span', {style: 'left:' + (100 * at / scale).toFixed(3) + '%'},
      at === 0 ? '0' : mark(text.seconds(at)))));
}

function showFamilies() {
  if (answer.families.length === 0 && answer.winner.terms.length === 0) return;
  const best = {...answer.winner, family: 'the winner', lost_by: '', fits: true, proved: true};
  const rows = [best, ...answer.families], scale = familyScale(rows);
  const root = section('families', 'Against other families',
    'The winner, and the best of each family that it is not in. Bars are the predicted step by ' +
    'what it is spent on; the bracket is where eight of ten measurements should lie' +
    (rows.some((row) => row.step_s > scale) ? '; bars with a torn end go on' : '') + '.' +
    (answer.ties > 0 ? ' ' + text.plural(answer.ties, 'more plan') +
      ' cannot be told apart from the winner' +
      (answer.purpose === 'train' ? ': see the runners-up.' : '.') : ''));
  const names = [...new Set(rows.flatMap((row) => row.terms.filter((term) =>
    term.seconds > 0.002 * row.step_s).map((term) => term.name)))];
  root.append(h('div', {class: 'card pad'},
    legend(names.map((name) => [termColour(name), name])),
    h('div', {class: 'families'}, rows.map((row) => familyRow(row, scale, best)), h('span', {}),
      familyAxis(scale))));
}
