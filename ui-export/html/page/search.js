// What the planner looked at: how many were legal, bounded and predicted, what the rules removed,
// and whether the search is closed.
function funnel() {
  const proof = answer.proof, noun = answer.purpose === 'train' ? 'plans' : 'jobs';
  const steps = [['legal ' + noun, proof.legal], ['bounds evaluated', proof.bounded],
    [answer.purpose === 'train' ? 'replayed' : 'predicted', proof.replayed]];
  const known = steps.filter(([, count]) => count !== null && count !== undefined);
  const most = Math.max(1, ...known.map(([, count]) => Math.log10(1 + count)));
  return h('div', {class: 'funnel'}, known.map(([name, count]) => [h('span', {}, name),
    h('div', {class: 'twin'}, h('i', {class: 'p', style: 'width:' +
      (100 * Math.log10(1 + count) / most).toFixed(1) + '%'})),
    h('span', {class: 'num', title: String(count)}, text.whole(count))]));
}

function proofWords() {
  const proof = answer.proof;
  if (!proof.best_s || proof.bound_remaining_s === null) return null;
  const bound = text.seconds(proof.bound_remaining_s), best = text.seconds(proof.best_s);
  const refined = proof.refined > 0 ? ' ' + proof.refined +
    ' more replays around the best tried what is not listed: that part is not proved.' : '';
  return h('p', {}, h('b', {class: isClosed(proof) ? 'good' : 'warn'}, isClosed(proof) ?
    'Closed.' : 'Open.'), ' The best takes ' + best + '; whatever was left out takes at least ' +
    bound + ' by a bound that no schedule can beat' + (isClosed(proof) ? '.' :
    ', so a plan that was not looked at may be faster.') + refined +
    (proof.seconds > 0 ? ' The search took ' + text.seconds(proof.seconds) + '.' : ''));
}

function rulesTable() {
  const rules = answer.rules;
  if (rules.length === 0) return null;
  const most = Math.max(...rules.map((row) => row.count));
  return h('div', {class: 'card pad'}, h('h3', {}, 'What the rules removed, in ' + answer.counts),
    h('div', {class: 'scroll'}, h('table', {id: 'rules'}, h('tbody', {}, rules.map((row) =>
      h('tr', {}, h('td', {class: 'num'}, text.whole(row.count)),
        h('td', {class: 'rule-bar'}, h('div', {class: 'twin'}, h('i', {class: 'm', style: 'width:' +
          (100 * row.count / most).toFixed(2) + '%'}))),
        h('td', {}, row.words, ' ', h('span', {class: 'small mono'}, row.rule))))))));
}

function unfitList() {
  const unfit = answer.families.filter((row) => !row.fits);
  if (unfit.length === 0) return null;
  return [h('h3', {style: 'margin-top:14px'}, 'Families of which nothing fits'),
    h('ul', {class: 'plain'}, unfit.map((row) => h('li', {}, h('b', {}, row.family),
      row.lost_by && row.lost_by !== 'nothing of it fits' ? ': ' + row.lost_by : '')))];
}

function showSearch() {
  const proof = answer.proof;
  if (!proof.legal) return;
  const root = section('search', 'The search', 'Each layout is counted at the first rule that it ' +
    'breaks; what is legal is bounded, and what may still be the best is ' +
    (answer.purpose === 'train' ? 'replayed' : 'predicted') + ', until nothing is left.');
  root.append(h('div', {class: 'split'}, h('div', {class: 'card pad'},
    h('h3', {}, 'Proof'), funnel(), proofWords(), unfitList()), rulesTable() || ''));
}
