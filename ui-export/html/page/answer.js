// A plan's answer: the one sentence, its four figures, the layout in words.
const answer = data.answer;

// "cp 16 × pp 8 × ep 16": the axes that are more than one.
function axesText(axes) {
  const layout = axes.layout;
  const named = [['tp', 'tp'], ['sp', 'sp'], ['cp', 'cp'], ['pp', 'pp'], ['ep', 'ep'],
    ['etp', 'etp'], ['dp', answer.purpose === 'train' ? null : 'dp'],
    ['fsdp_d', answer.purpose === 'train' ? 'fsdp' : null],
    ['replicate_d', answer.purpose === 'train' ? 'replicas' : null]];
  const parts = named.filter(([key, name]) => name && layout[key] > 1)
    .map(([key, name]) => name + NBSP + layout[key]);
  return parts.length > 0 ? parts.join(' × ') : 'one device';
}

function isClosed(proof) {
  return proof.bound_remaining_s !== null && proof.best_s > 0 &&
    proof.bound_remaining_s >= proof.best_s;
}

function answerTitle() {
  return answer.model + ' trains fastest on ' + answer.cluster + ' with ' +
    axesText(answer.winner.axes) + ': ' + text.seconds(answer.winner.step_s) + ' a step';
}

// "the fastest of 655 M legal jobs, proved", as far as it is.
function provedText() {
  const proof = answer.proof, noun = answer.purpose === 'train' ? 'plans' : 'jobs';
  if (!proof.legal) return '';
  const slower = answer.ties > 0 && answer.winner.step_s > proof.best_s * (1 + 1e-9);
  const of = (slower ? 'the simplest of those that cannot be told apart from ' : '') +
    'the fastest of ' + text.count(proof.legal) + ' legal ' + noun;
  if (isClosed(proof)) return of + ', proved';
  const gap = proof.best_s > 0 ? 1 - proof.bound_remaining_s / proof.best_s : null;
  return of + ', as far as was searched: at most ' + text.percent(gap) + ' better exists';
}

function answerSentence() {
  const winner = answer.winner, words = [];
  words.push(h('b', {}, text.seconds(winner.step_s)), ' a step (' + text.seconds(winner.p10_s) +
    ' to ' + text.seconds(winner.p90_s) + ' in eight of ten cases)');
  const proved = provedText();
  if (proved) words.push(', ' + proved);
  words.push('. ');
  const rival = answer.families.find((row) => row.fits && row.step_s > winner.step_s);
  if (rival) {
    words.push('Next best: ' + rival.family + ', ' +
      text.signedPercent(rival.step_s / winner.step_s - 1) + ' (' + rival.lost_by + '). ');
  }
  const longest = [...winner.terms].sort((a, b) => b.seconds - a.seconds).slice(0, 2);
  if (longest.length > 1) {
    words.push('Most of the step is ' + longest.map((term) => term.name + ' (' +
      text.percent(term.seconds / winner.step_s) + ')').join(' and ') + '.');
  }
  return h('p', {class: 'verdict', id: 'answer'}, words);
}

function answerFigures() {
  const winner = answer.winner;
  const card = (title, value, small) => h('div', {class: 'card figure'}, h('h3', {}, title),
    h('div', {class: 'pair'}, h('span', {class: 'value'}, value)),
    h('p', {class: 'small', title: small}, small));
  const fits = winner.probability_fits === null ? '' :
    ' (fits to ' + text.percent(winner.probability_fits) + ')';
  return h('div', {class: 'figures'},
    card('Step time', text.seconds(winner.step_s), 'predicted ' + text.seconds(winner.p10_s) +
      ' to ' + text.seconds(winner.p90_s)),
    card('Tokens a second', text.count(winner.tokens_per_s), text.count(answer.tokens) +
      ' tokens a step'),
    card('Model FLOP utilisation', text.percent(winner.mfu), 'of the peak of ' +
      text.plural(answer.devices, 'device') + ' (' + answer.device + ')'),
    card('Peak memory', text.bytes(winner.peak_bytes), 'of ' +
      text.bytes(answer.usable_bytes) + ' a device' + fits));
}

const SHARDED = {none: 'nothing of their state is split',
  optimizer: 'the optimizer states are split',
  gradients: 'optimizer states and gradients are split',
  parameters: 'optimizer states, gradients and parameters are split (FSDP)'};

// Each axis and choice of a job as [name, sentence].
function jobWords(axes) {
  const layout = axes.layout, rows = [];
  const ranks = (count) => text.plural(count, 'rank');
  if (layout.tp > 1) {
    rows.push(['tensor', 'each product is cut over ' + layout.tp + ' neighbouring devices' +
      (axes.sequence_parallel ? ', and the rows between products too' : '')]);
  }
  if (layout.cp > 1) {
    const how = {ring: 'passed round in a ring', all_to_all: 'exchanged by heads',
      all_gather: 'gathered'}[axes.exchange] || axes.exchange;
    rows.push(['context', 'each sequence lies on ' + ranks(layout.cp) + '; keys and values are ' +
      how]);
  }
  if (layout.sp > 1) {
    rows.push(['sequence', 'each sequence lies on ' + ranks(layout.sp) +
      ', which exchange heads for attention']);
  }
  if (layout.pp > 1) {
    rows.push(['pipeline', layout.pp + ' stages' + (axes.virtual_stages > 1 ? ' of ' +
      axes.virtual_stages + ' chunks of layers each' : '') + ', in the order of ' +
      axes.schedule.replaceAll('_', ' ')]);
  }
  if (layout.ep > 1) {
    const how = {all_to_all: 'each row goes to the ranks of its experts',
      deduplicated: 'each row goes once to each node that has an expert of it',
      all_gather: 'all rows go to all of them'}[axes.dispatcher] || axes.dispatcher;
    rows.push(['experts', 'the experts lie on ' + ranks(layout.ep) + '; ' + how]);
  }
  if (layout.etp > 1) rows.push(['expert tensor', 'each expert is cut over ' + ranks(layout.etp)]);
  rows.push(['data', layout.dp + (layout.dp === 1 ? ' copy' : ' copies') +
    ' of the model, each with its own sequences; ' + (SHARDED[axes.sharding] || axes.sharding) +
    (axes.sharding === 'none' ? '' : ' over ' + ranks(layout.fsdp_d)) +
    (axes.keeps_gathered ? ', kept whole until backward' : '')]);
  const micro = axes.global_sequences / (layout.dp * layout.micro_batch);
  rows.push(['micro-batches', text.plural(micro, 'micro-batch').replace('batchs', 'batches') +
    ' a step, of ' + text.plural(layout.micro_batch, 'sequence')]);
  const again = axes.recompute;
  rows.push(['recompute', again.full ? 'backward runs ' + (again.full_layers > 0 ?
    text.plural(again.full_layers, 'layer') + ' of each stage' : 'all layers') + ' again' :
    again.ops ? 'backward runs cheap ops again' : again.modules.length > 0 ?
      'backward runs again: ' + again.modules.join(', ').replaceAll('_', ' ') :
      'nothing runs again: all is kept']);
  rows.push(['precision', axes.precision]);
  return rows;
}

function planWords(axes) {
  const {layout, chunks, memory_policy: policy} = axes, rows = [];
  rows.push(['sharding', 'parameters are split over ' + text.plural(layout.fsdp_d, 'rank') +
    (layout.replicate_d > 1 ? ', ' + layout.replicate_d + ' times over' : '')]);
  if (layout.ep > 1) {
    rows.push(['experts', 'on ' + text.plural(layout.ep, 'rank') + ', split again over ' +
      layout.fsdp_e + '; rows go by ' + layout.dispatcher.replaceAll('_', '-')]);
  }
  if (layout.sp > 1) {
    rows.push(['sequence', 'each sequence lies on ' + layout.sp +
      ' ranks, which exchange heads for attention']);
  }
  rows.push(['micro-batches', layout.accumulation + (layout.accumulation === 1 ? ' pass' :
    ' passes') + ' a step' + (chunks.domino > 1 ? ' of ' + chunks.domino + ' interleaved' : '') +
    ', micro-batches of ' + text.plural(layout.micro_batch, 'sequence')]);
  const again = [['recompute_layers', 'whole layers'], ['recompute_attention', 'attention'],
    ['recompute_ffn', 'MLP or experts'], ['recompute_experts', 'the experts\u2019 products']]
    .filter(([key]) => policy[key] > 0).map(([key, name]) => name + ' of ' + policy[key]);
  rows.push(['recompute', again.length > 0 ? 'backward runs again: ' + again.join(', ') :
    'nothing runs again: all is kept']);
  if (policy.swap_layers > 0) {
    rows.push(['swap', 'inputs of ' + text.plural(policy.swap_layers, 'layer') +
      ' wait on the host']);
  }
  if (policy.host_optimizer) rows.push(['optimizer', 'the moments lie on the host']);
  if (chunks.loss_tokens > 0) {
    rows.push(['loss', 'in chunks of ' + chunks.loss_tokens + ' rows']);
  }
  rows.push(['gathers', chunks.prefetch_depth + ' ahead of use']);
  return rows;
}

function layoutWords() {
  const axes = answer.winner.axes;
  return answer.purpose === 'train' ? planWords(axes) : jobWords(axes);
}
