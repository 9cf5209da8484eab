// Where the step goes by phase, predicted above measured, as bars to one scale and as figures.
const PARTS = ['compute', 'exposed', 'idle'];

function breakdownRows(step) {
  const sides = [['predicted', breakdownOf(predicted, predictedStep)],
    ['measured', breakdownOf(measured, step)]].filter(([, phases]) => phases);
  const names = [...new Set(sides.flatMap(([, phases]) => [...phases.keys()]))];
  const rows = names.map((name) => [name, sides.map(([who, phases]) =>
    [who, phases.get(name) || {compute: 0, exposed: 0, hidden: 0, idle: 0}])]);
  rows.unshift(['whole step', sides.map(([who, phases]) => [who, sumParts(phases)])]);
  return rows;
}

function breakdownTable(step) {
  const length = (parts) => parts.compute + parts.exposed + parts.idle;
  const rows = breakdownRows(step);
  // The whole step has a scale of its own, or phases would be slivers.
  const most = (some) => Math.max(1, ...some.flatMap(([, sides]) => sides.map(([, parts]) =>
    Math.max(length(parts), parts.hidden))));
  const whole = most(rows.slice(0, 1)), phase = most(rows.slice(1));
  const bar = (parts, scale, names, thin) => h('div', {class: thin ? 'stack thin' : 'stack'},
    names.map((name) => h('i', {class: name, title: name + ' ' + text.time(parts[name]),
      style: 'width:' + (100 * parts[name] / scale).toFixed(2) + '%'})));
  const body = rows.flatMap(([name, sides], k) => sides.map(([who, parts], i) => {
    const scale = k === 0 ? whole : phase;
    return h('tr', {class: i === 0 ? 'first' : ''},
      h('td', {}, i === 0 ? h('b', {}, name) : ''),
      h('td', {class: 'who'}, h('span', {class: 'key ' + who}, who)),
      h('td', {class: 'bars'}, bar(parts, scale, PARTS, false),
        bar(parts, scale, ['hidden'], true)),
      [...PARTS, 'hidden'].map((part) => h('td', {class: 'num'}, text.time(parts[part]))),
      h('td', {class: 'num'}, h('b', {}, text.time(length(parts)))));
  }));
  return h('div', {class: 'scroll'}, h('table', {class: 'phases'},
    h('thead', {}, h('tr', {}, h('th', {}, 'phase'), h('th', {}, ''), h('th', {}, ''),
      ['compute', 'exposed', 'idle', 'hidden', 'together'].map((name) =>
        h('th', {class: 'num'}, name)))),
    h('tbody', {}, body)));
}

function showBreakdown() {
  const any = [predicted, measured].some((side) => side && side.breakdown.steps.length > 0);
  if (!any) return;
  const root = section('breakdown', 'Breakdown',
    'The mean of the ranks. Exposed is communication that no compute covers, hidden is ' +
    'communication beside compute; idle belongs to the phase that comes next. Compute, exposed ' +
    'and idle are the step.');
  const box = h('div', {class: 'card pad'});
  const fill = () => box.replaceChildren(
    legend([['compute', 'compute'], ['exposed', 'exposed communication'], ['idle', 'idle'],
      ['hidden', 'hidden communication (thin bar)']]), breakdownTable(state.step));
  fill();
  onChange((values) => { if ('step' in values) fill(); });
  root.append(box);
}
