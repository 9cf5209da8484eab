// Memory of the winner by class, against what a device has.
function showCapacity() {
  const rows = answer.winner.memory;
  if (rows.length === 0) return;
  const capacity = answer.capacity_bytes;
  const sum = rows.reduce((bytes, row) => bytes + row.bytes, 0);
  const scale = Math.max(capacity, sum);
  const root = section('capacity', 'Memory of a device', 'The fullest device at its peak, by ' +
    'what the bytes are for; the whole width is what a device has.');
  const bar = h('div', {class: 'stack tall', role: 'img', 'aria-label': text.bytes(sum) + ' of ' +
    text.bytes(capacity)}, rows.map((row) => h('i', {style: 'width:' +
    (100 * row.bytes / scale).toFixed(3) + '%;background:var(--' + classColour(row.class) + ')',
  onpointermove: (event) => showTip(event, h('b', {}, row.class.replaceAll('_', ' ')), ' ' +
    text.bytes(row.bytes)), onpointerleave: hideTip})));
  const cells = [...rows.map((row) => [row.class.replaceAll('_', ' '), row.bytes,
    classColour(row.class)]), ['free', Math.max(0, capacity - sum), null]];
  root.append(h('div', {class: 'card pad'}, bar, h('div', {class: 'classes'},
    cells.map(([name, bytes, shade]) => h('div', {}, h('span', {class: 'legend'}, h('span', {},
      h('i', {style: shade ? 'background: var(--' + shade + ')' :
        'outline: 1px solid var(--line)'}), name)), h('b', {}, text.bytes(bytes)),
    h('span', {class: 'small'}, text.percent(bytes / capacity)))))));
}
