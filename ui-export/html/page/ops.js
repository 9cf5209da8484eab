// Every op, predicted against measured: a table that sorts, filters and takes layers together.
const FIRST_ROWS = 20;

// Rows of single ops, or of the same op of all layers: their sums.
function opRows(together) {
  if (!together) {
    const known = ops.filter((op) => op.times && op === op.same[0]);
    return known.map((op) => ({path: op.path, phase: op.phase, kind: op.kind,
      microBatch: String(op.microBatch), count: 1, op, ...op.times}));
  }
  return data.compare.layers.map((row) => ({...row, microBatch: '', op: ops[row.op]}));
}

function withDifference(row) {
  const known = row.predicted !== null && row.measured !== null;
  return {...row, difference: known ? row.predicted - row.measured : null,
    error: known ? errorOf(row.predicted, row.measured) : null};
}

// Differences and errors sort by size; what is unknown goes last.
function sortRows(rows, column, down) {
  const value = (row) => {
    const raw = row[column];
    return (column === 'difference' || column === 'error') && raw !== null ? Math.abs(raw) : raw;
  };
  return [...rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === null || y === null) return (x === null ? 1 : 0) - (y === null ? 1 : 0);
    const order = typeof x === 'string' ? x.localeCompare(y, 'en', {numeric: true}) : x - y;
    return down ? -order : order;
  });
}

class OpTable {
  constructor() {
    this.together = true;
    this.column = both ? 'difference' : measured ? 'measured' : 'predicted';
    this.down = true;
    this.filter = '';
    this.all = false;
    this.columns = [['path', 'op', ''], ['phase', 'phase', ''], ['kind', 'kind', ''],
      ['count', 'ops', 'num'], ['microBatch', 'mb', 'num'], ['predicted', 'predicted', 'num'],
      ['measured', 'measured', 'num'], ['difference', 'difference', 'num'],
      ['error', 'error', 'num']].filter(([name]) => this.shows(name));
    this.head = h('tr', {});
    this.body = h('tbody', {id: 'op-rows'});
    this.foot = h('p', {class: 'note'});
    this.fill();
  }

  shows(name) {
    if (name === 'predicted') return Boolean(predicted);
    if (name === 'measured') return Boolean(measured);
    return both || (name !== 'difference' && name !== 'error');
  }

  sort(column) {
    this.down = this.column === column ? !this.down :
      !['path', 'phase', 'kind', 'microBatch'].includes(column);
    this.column = column;
    this.fill();
  }

  rows() {
    const wanted = this.filter.trim().toLowerCase();
    const rows = opRows(this.together).map(withDifference)
      .filter((row) => (row.path + ' ' + row.phase + ' ' + row.kind).toLowerCase()
        .includes(wanted));
    return sortRows(rows, this.column, this.down);
  }

  cell(row, name, kind) {
    const value = row[name];
    if (name === 'path') return h('td', {class: 'wrap'}, value);
    if (name === 'kind') return h('td', {}, value.replaceAll('_', ' '));
    if (name === 'difference') {
      return h('td', {class: kind}, value === null ? '–' : text.signedTime(value));
    }
    if (name === 'error') {
      return h('td', {class: kind + ' ' + errorClass(value)}, text.signedPercent(value));
    }
    const timed = name === 'predicted' || name === 'measured';
    return h('td', {class: kind}, timed ? text.time(value) : String(value));
  }

  fill() {
    const shown = this.columns.filter(([name]) =>
      name === 'count' ? this.together : name !== 'microBatch' || !this.together);
    this.head.replaceChildren(...shown.map(([name, title, kind]) => h('th', {class: kind,
      scope: 'col', 'aria-sort': this.column === name ?
        (this.down ? 'descending' : 'ascending') : null},
    h('button', {type: 'button', 'data-column': name, onclick: () => this.sort(name)}, title))));
    const rows = this.rows(), some = this.all ? rows : rows.slice(0, FIRST_ROWS);
    this.body.replaceChildren(...some.map((row) => h('tr', {class: 'pick' +
      (isSame(state.op, row.op) ? ' chosen' : ''), onclick: () => change({op: row.op})},
    shown.map(([name, , kind]) => this.cell(row, name, kind)))));
    this.foot.replaceChildren(text.plural(rows.length, 'row') +
      (some.length < rows.length ? ', ' + some.length + ' shown. ' : '. '));
    if (some.length < rows.length) {
      this.foot.append(h('button', {type: 'button', onclick: () => {
        this.all = true;
        this.fill();
      }}, 'Show all'));
    }
  }
}

function opsLead() {
  const compare = data.compare;
  const words = ['Times are of a rank and step: the median over steps, the mean over ranks.'];
  if (both) {
    words.push(text.plural(compare.joined, 'op') + ' joined' +
      (compare.same_program ? '.' : ' by path: the programs differ.'));
    if (compare.only_predicted > 0) words.push(compare.only_predicted + ' only predicted.');
    if (compare.only_measured > 0) words.push(compare.only_measured + ' only measured.');
    words.push('A click shows an op in the timeline.');
  }
  return words.join(' ');
}

function showOps() {
  if (!ops.some((op) => op.times)) return null;
  const root = section('ops', 'Ops', opsLead());
  const table = new OpTable();
  const toggle = (together, label) => {
    const button = h('button', {type: 'button', 'aria-pressed': String(together === true),
      onclick: () => {
        table.together = together;
        for (const other of button.parentElement.children) {
          other.setAttribute('aria-pressed', String(other === button));
        }
        table.fill();
      }}, label);
    return button;
  };
  const filter = h('input', {type: 'search', placeholder: 'experts', 'aria-label': 'Filter ops',
    oninput: () => { table.filter = filter.value; table.fill(); }});
  const tools = h('div', {class: 'tools'}, h('span', {class: 'group'},
    toggle(true, 'Layers together'), toggle(false, 'Each op')), h('label', {}, 'Filter', filter));
  const grid = h('div', {class: 'card pad'}, h('div', {class: 'scroll'},
    h('table', {}, h('thead', {}, table.head), table.body)), table.foot);
  root.append(scatterBox() || '', tools, grid);
  onChange((values) => { if ('op' in values) table.fill(); });
  return table;
}
