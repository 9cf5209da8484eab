// What the page is about, the verdict in a sentence, the four figures, where they differ.

function jobText() {
  const plan = data.plan;
  if (!plan) return main.file;
  return plan.model + ' on ' + plan.cluster + ', ' + plan.workload;
}

function runText() {
  const words = [];
  if (measured) {
    words.push((measured.kind === 'imported' ? 'imported' : 'measured') + ' run ' + measured.file);
    words.push(text.plural(measured.world, 'rank'));
    const steps = measured.steps.step.length;
    words.push(text.plural(steps, 'step') + (steps > 2 ? ' (the first left out of figures)' : ''));
    if (measured.created) words.push(measured.created);
  } else {
    words.push('simulated', text.plural(predicted.world, 'rank'));
  }
  return words.join(' · ');
}

function notices() {
  const list = [];
  for (const side of [measured, predicted]) {
    if (!side) continue;
    if (side.status !== 'ok') {
      const end = side.status === 'failed' ? 'failed' : 'did not end';
      list.push(['bad', 'The run in ' + side.file + ' ' + end +
        (side.reason ? ': ' + side.reason : '') + '. What it recorded until then is shown.']);
    }
    if (side.dropped > 0) {
      list.push(['', text.count(side.dropped) + ' records were lost to full buffers: times of ' +
        'ops are of those that were kept.']);
    }
    if (side.timeline.steps.length === 0) {
      list.push(['', side.file + ' holds no spans: there is no timeline of it, no breakdown, ' +
        'and no time of single ops.']);
    }
    for (const remark of side.remarks) list.push(['', side.file + ': ' + remark]);
  }
  if (both && !data.compare.same_program) {
    list.push(['', 'The prediction is of another program than the run: ops are joined by path.']);
  }
  for (const remark of data.remarks) list.push(['', remark]);
  return list.map(([kind, words]) => h('p', {class: 'notice ' + kind}, words));
}

function className(row) {
  const kind = row.kind.replaceAll('_', ' ');
  const where = row.lane === 'compute' ? '' : ' on ' + row.lane;
  const told = {fwd: 'forward', bwd: 'backward', opt: 'optimizer'}[row.phase];
  return kind + (told && kind.startsWith(told) ? '' : ', ' + row.phase) + where;
}

// Classes of op, the largest difference first; one that a side lacks differs by all of it.
function differences() {
  return data.compare.classes.map((row) =>
    ({...row, difference: (row.predicted ?? 0) - (row.measured ?? 0)}));
}

function comparison(error, less, more) {
  if (Math.abs(error) < 0.0005) return 'as predicted';
  return (100 * Math.abs(error)).toFixed(1) + NBSP + '% ' + (error > 0 ? more : less);
}

function verdict() {
  if (!both) return soloVerdict();
  const before = predicted.headline, after = measured.headline, words = [];
  const step = errorOf(before.step_s, after.step_s);
  if (step !== null) {
    words.push('Predicted ', h('b', {class: 'predicted'}, text.seconds(before.step_s)),
      ' a step, measured ', h('b', {class: 'measured'}, text.seconds(after.step_s)),
      Math.abs(step) < 0.0005 ? ': equal. ' :
        ': the prediction is ' + comparison(step, 'too short', 'too long') + '. ');
  }
  const peak = errorOf(before.peak_bytes, after.peak_bytes);
  if (peak !== null) {
    words.push(Math.abs(peak) < 0.0005 ? 'Peak memory is as predicted. ' :
      'Peak memory was predicted ' + comparison(peak, 'too low', 'too high') + '. ');
  }
  const largest = differences().filter((row) => row.difference !== 0).slice(0, 2);
  if (largest.length > 0) {
    const each = largest.map((row) => className(row) + ' (' +
      text.signedTime(row.difference) + ')');
    words.push('The largest differences: ' + each.join('; ') + '.');
  }
  return h('p', {class: 'verdict'}, words);
}

function soloVerdict() {
  if (answer) return answerSentence();
  const figures = main.headline, words = [];
  if (figures.step_s !== null) {
    words.push(measured ? 'Measured ' : 'Predicted ', h('b', {}, text.seconds(figures.step_s)),
      ' a step');
    if (figures.peak_bytes !== null) {
      words.push(' and a peak of ', h('b', {}, text.bytes(figures.peak_bytes)), ' a device');
    }
    words.push('. ');
  }
  const longest = [...data.compare.classes].sort((a, b) =>
    (b.predicted ?? b.measured ?? 0) - (a.predicted ?? a.measured ?? 0)).slice(0, 2);
  if (longest.length > 0) {
    words.push('Most time is in ' + longest.map((row) => className(row) + ' (' +
      text.time(row.predicted ?? row.measured) + ')').join(' and ') + '.');
  }
  if (!measured) words.push(' Nothing was measured: this page is a prediction alone.');
  return h('p', {class: 'verdict'}, words);
}

// One of the four: {title, name in headline, format, small print}.
function figure(title, name, format, small) {
  const before = predicted ? predicted.headline[name] : null;
  const after = measured ? measured.headline[name] : null;
  if (before === null && after === null) return null;
  const error = both ? errorOf(before, after) : null;
  const value = (who, label, amount) => amount !== null && h('div', {},
    h('span', {class: 'who ' + who}, label), h('span', {class: 'value'}, format(amount)));
  return h('div', {class: 'card figure'}, h('h3', {}, title),
    h('div', {class: 'pair'}, value('predicted', 'predicted', before),
      value('measured', 'measured', after),
      error !== null && h('div', {class: 'error'}, h('span', {class: 'who'}, 'error'),
        h('b', {class: errorClass(error)}, text.signedPercent(error)))),
    h('p', {class: 'small', title: small || ''}, small || '\u00a0'));
}

function figures() {
  const interval = data.interval && predicted && predicted.headline.step_s ?
    'predicted ' + text.seconds(data.interval.low_s) + ' to ' +
      text.seconds(data.interval.high_s) : '';
  const plan = data.plan;
  const tokens = main.steps.tokens.find((count) => count > 0);
  return h('div', {class: 'figures'},
    figure('Step time', 'step_s', text.seconds, interval),
    figure('Tokens a second', 'tokens_per_s', text.count,
      tokens && text.count(tokens) + ' tokens a step'),
    figure('Model FLOP utilisation', 'mfu', text.percent,
      plan && 'of the peak of ' + text.plural(plan.devices, 'device') + ' (' + plan.device + ')'),
    figure('Peak memory', 'peak_bytes', text.bytes,
      plan && 'a device, of ' + text.bytes(plan.usable_bytes) + ' usable'));
}

function differenceBars() {
  const rows = both ? differences().slice(0, 8) :
    [...data.compare.classes].sort((a, b) =>
      (b.predicted ?? b.measured) - (a.predicted ?? a.measured)).slice(0, 8);
  if (rows.length === 0) return null;
  const most = Math.max(...rows.map((r) => Math.max(r.predicted ?? 0, r.measured ?? 0)), 1);
  const bar = (kind, ns) => ns !== null &&
    h('i', {class: kind, style: 'width:' + (100 * ns / most).toFixed(2) + '%'});
  const cells = rows.map((row) => {
    const numbers = both ? text.time(row.predicted) + ' / ' + text.time(row.measured) :
      text.time(row.predicted ?? row.measured);
    return [h('span', {class: 'name', title: className(row)}, className(row)),
      h('span', {class: 'num'}, numbers),
      h('span', {class: 'num last'}, both ? h('b', {}, text.signedTime(row.difference)) : ''),
      h('div', {class: 'twin'}, bar('p', row.predicted), bar('m', row.measured))];
  });
  return h('div', {class: 'card pad'},
    h('h3', {}, both ? 'Where they differ most, by class of op (a rank and step)' :
      'Where the time is, by class of op (a rank and step)'),
    h('div', {class: 'diffs'}, cells));
}

// The step's parts as one bar a side.
function stepBars() {
  const sides = [['predicted', predicted, predictedStep], ['measured', measured, state.step]];
  const known = sides.map(([who, side, step]) => [who, breakdownOf(side, step), step])
    .filter(([, phases]) => phases).map(([who, phases, step]) => [who, sumParts(phases), step]);
  if (known.length === 0) return null;
  const length = (sum) => sum.compute + sum.exposed + sum.idle;
  const most = Math.max(...known.map(([, sum]) => length(sum)), 1);
  const bars = known.map(([who, sum, step]) => {
    const part = (name) => h('i', {class: name, style: 'width:' +
      (100 * sum[name] / most).toFixed(2) + '%',
      title: name + ' ' + text.time(sum[name])});
    return h('div', {style: 'margin-bottom:6px'},
      h('div', {style: 'display:flex;justify-content:space-between'},
        h('span', {class: 'key ' + who}, who === 'measured' ? 'measured, step ' + step : who),
        h('span', {}, text.time(length(sum)))),
      h('div', {class: 'stack'}, part('compute'), part('exposed'), part('idle')));
  });
  const table = h('table', {class: 'tight'}, h('thead', {}, h('tr', {}, h('th', {}, ''),
    known.map(([who]) => h('th', {class: 'num'}, who)))), h('tbody', {}, [['compute', 'compute'],
    ['exposed', 'exposed communication'], ['idle', 'idle'],
    ['hidden', 'communication hidden by compute']].map(([name, label]) => h('tr', {},
    h('td', {}, h('span', {class: 'legend'}, h('span', {}, h('i', {class: name}), label))),
    known.map(([, sum]) => h('td', {class: 'num'}, text.time(sum[name])))))));
  return h('div', {class: 'card pad'}, h('h3', {}, 'Where the step goes, mean of the ranks'),
    bars, h('div', {class: 'scroll'}, table));
}

function showHeadline() {
  const root = document.getElementById('main');
  document.title = answer ? answerTitle() + ' – Orrery plan' : jobText() + ' – Orrery report';
  const boxes = h('div', {class: 'split', id: 'overview'});
  const fill = () => boxes.replaceChildren(...[differenceBars(), stepBars()].filter(Boolean));
  fill();
  onChange((values) => { if ('step' in values) fill(); });
  root.append(h('div', {class: 'head'}, h('div', {},
    h('h1', {}, answer ? answerTitle() : jobText()),
    h('p', {class: 'sub'}, runText(), data.plan ? ' · ' + data.plan.layout : ''))),
  ...notices(), verdict(), figures(), boxes);
  root.append(h('div', {style: 'height:22px'}));
}
