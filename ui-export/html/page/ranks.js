// Which devices work together: the layout in words, and for each axis the group of the first rank.

// Axes from the innermost on: [name, ranks, stride between neighbours of the group].
function rankAxes() {
  const layout = answer.winner.axes.layout, list = [];
  const add = (name, size, stride) => { if (size > 1) list.push({name, size, stride}); };
  if (answer.purpose === 'train') {
    const data = layout.fsdp_d * layout.replicate_d;
    add('sequence', layout.sp, 1);
    const shardsInner = layout.dense_inner === 'fsdp';
    add('shards', layout.fsdp_d, shardsInner ? 1 : layout.replicate_d);
    add('replicas', layout.replicate_d, shardsInner ? layout.fsdp_d : 1);
    const expertsInner = layout.expert_inner === 'ep';
    if (layout.ep > 1) add('experts', layout.ep, expertsInner ? 1 : layout.fsdp_e);
    return {list, world: data};
  }
  add('tensor', layout.tp, 1);
  add('sequence', layout.sp, layout.tp);
  add('context', layout.cp, layout.tp * layout.sp);
  add('data', layout.dp, layout.tp * layout.cp * layout.sp);
  add('expert tensor', layout.etp, 1);
  add('experts', layout.ep, layout.etp);
  add('pipeline', layout.pp, layout.tp * layout.cp * layout.sp * layout.dp);
  return {list, world: answer.devices};
}

function whereText(axis, node) {
  const reach = (axis.size - 1) * axis.stride + 1;
  if (reach <= node) return 'all in one node';
  const inNode = Math.max(1, Math.floor(node / axis.stride));
  if (inNode <= 1) return 'each on another node';
  const nodes = Math.ceil(axis.size / inNode);
  return inNode + ' of them in each of ' + text.plural(nodes, 'node');
}

function ranksPicture() {
  const {list} = rankAxes(), node = answer.node;
  if (list.length === 0 || answer.devices < 2) return null;
  const nodes = Math.max(1, Math.min(Math.ceil(answer.devices / node), Math.floor(32 / node)));
  const shown = Math.min(answer.devices, node > 32 ? 32 : nodes * node);
  const strip = (axis) => h('div', {class: 'ranks'}, Array.from({length:
    Math.ceil(shown / node)}, (_, n) => h('span', {class: 'node'}, Array.from({length:
    Math.min(node, shown - n * node)}, (__, d) => {
    const rank = n * node + d;
    const member = rank % axis.stride === 0 && rank / axis.stride < axis.size;
    return h('i', {class: rank === 0 ? 'own' : member ? 'with' : '', title: 'rank ' + rank});
  }))));
  return h('div', {class: 'card pad'}, h('h3', {}, 'Which devices work together: the group of ' +
    'rank 0 on each axis'), h('div', {class: 'rank-rows'}, list.map((axis) => [
    h('b', {}, axis.name + NBSP + axis.size), strip(axis),
    h('span', {class: 'small'}, whereText(axis, node))])),
  h('p', {class: 'note'}, 'Boxes are nodes of ' + text.plural(node, 'device') + '; the first ' +
    shown + ' of ' + text.whole(answer.devices) + ' devices are drawn.'));
}

function showLayout() {
  const root = section('layout', 'The layout');
  const words = h('div', {class: 'card pad'}, h('h3', {}, 'In words'), h('dl', {class: 'facts'},
    layoutWords().map(([name, sentence]) => fact(name, sentence)),
    answer.stack && fact('framework', answer.stack)), h('p', {class: 'note mono'},
    answer.winner.words));
  const picture = ranksPicture();
  root.append(picture ? h('div', {class: 'split'}, words, picture) : words);
}
