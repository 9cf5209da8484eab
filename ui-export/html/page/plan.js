// The plan: what it is, what it was predicted to cost, who lost and why, what the search did.

function planFacts(plan) {
  const before = plan.predicted;
  return h('dl', {class: 'facts'},
    fact('model', plan.model + ': ' + text.count(plan.parameters) + ' parameters, ' +
      text.count(plan.active_parameters) + ' active'),
    fact('cluster', plan.cluster + ': ' + text.plural(plan.devices, 'device') + ' (' +
      plan.device + ')'),
    fact('workload', plan.workload + ': ' + text.count(plan.tokens) + ' tokens a step'),
    fact('layout', plan.layout),
    before && fact('predicted', text.seconds(before.step_s) + ' a step (' +
      text.seconds(before.p10_s) + ' to ' + text.seconds(before.p90_s) + '), ' +
      text.count(before.tokens_per_s) + ' tokens/s, ' + text.percent(before.mfu) +
      ' MFU, when it was planned'),
    before && fact('memory', text.bytes(before.peak_bytes) + ' of ' +
      text.bytes(plan.usable_bytes) + ' a device'),
    fact('plan', h('span', {class: 'mono'}, plan.sha256.slice(0, 16))));
}

function runnersTable(plan) {
  if (plan.runners_up.length === 0) return null;
  const best = plan.predicted ? plan.predicted.step_s : null;
  return h('div', {class: 'card pad', style: 'margin-top:16px'},
    h('h3', {}, 'Runners-up, and why each lost'), h('div', {class: 'scroll'}, h('table', {},
      h('thead', {}, h('tr', {}, h('th', {class: 'num'}, 'step'), h('th', {class: 'num'}, 'slower'),
        h('th', {class: 'num'}, 'peak'), h('th', {}, 'layout'), h('th', {}, 'lost by'))),
      h('tbody', {}, plan.runners_up.map((runner) => h('tr', {},
        h('td', {class: 'num'}, text.seconds(runner.step_s)),
        h('td', {class: 'num'}, best ? text.signedPercent(runner.step_s / best - 1) : '–'),
        h('td', {class: 'num'}, text.bytes(runner.peak_bytes)),
        h('td', {class: 'wrap'}, runner.layout), h('td', {class: 'wrap'}, runner.lost_by)))))));
}

function searchBox(plan) {
  const search = plan.search;
  if (search.legal === 0) return null;
  const words = [text.count(search.legal) + ' legal plans, ' + text.count(search.bounded) +
    ' bounded, ' + search.replayed + ' replayed' + (search.refined > 0 ? ', and ' +
    search.refined + ' more around the best.' : '.')];
  if (search.bound_remaining_s > 0) {
    const bound = text.seconds(search.bound_remaining_s);
    words.push(search.bound_remaining_s >= search.best_s ?
      'Closed: no plan that was not replayed can take less than ' + bound + '.' :
      'Open: a plan that was not replayed may take as little as ' + bound + '.');
  }
  const rules = search.rejected.length > 0 && h('table', {}, h('thead', {}, h('tr', {},
    h('th', {class: 'num'}, 'plans'), h('th', {}, 'removed by'))), h('tbody', {},
    search.rejected.map((row) => h('tr', {}, h('td', {class: 'num'}, text.count(row.count)),
      h('td', {}, row.rule.replaceAll('_', ' '))))));
  return h('div', {class: 'card pad'}, h('h3', {}, 'The search'), h('p', {}, words.join(' ')),
    rules && h('div', {class: 'scroll'}, rules), fitsList(plan));
}

function fitsList(plan) {
  const fits = plan.search.fits;
  if (fits.length === 0) return null;
  return [h('h3', {style: 'margin-top:12px'}, 'Why it fits'), h('dl', {class: 'facts'},
    fits.map((reason) => fact('without ' + reason.mechanism, reason.fits_without ?
      'another plan fits, with ' + text.bytes(reason.peak_bytes) :
      'nothing fits, the least needs ' + text.bytes(reason.peak_bytes) + ' of ' +
        text.bytes(plan.usable_bytes))))];
}

function showPlan() {
  const plan = data.plan;
  if (!plan) return;
  const root = section('plan', 'Plan');
  const fits = fitsList(plan);
  const beside = answer ? fits && h('div', {class: 'card pad'}, fits) : searchBox(plan);
  root.append(h('div', {class: beside ? 'split' : ''}, h('div', {class: 'card pad'},
    planFacts(plan)), beside || ''), runnersTable(plan) || '');
}

// What the planner answered, on a page about a plan.
function showAnswer() {
  if (!answer) return;
  for (const part of [showFamilies, showFrontier, showCapacity, showLayout, showSearch]) part();
}
