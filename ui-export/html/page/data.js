// The document that the page shows, and its columns turned into things with names.
const data = JSON.parse(document.getElementById('data').textContent);
const predicted = data.predicted, measured = data.measured;
const both = Boolean(predicted && measured);
const main = measured || predicted;  // the side that the page is about

const ops = data.ops.path.map((path, i) => ({
  index: i, path, deps: data.ops.deps[i], bytes: data.ops.bytes[i],
  phase: data.ops.names[data.ops.phase[i]], kind: data.ops.names[data.ops.kind[i]],
  lane: data.ops.names[data.ops.lane[i]], group: data.ops.names[data.ops.group[i]],
  unit: data.ops.names[data.ops.unit[i]], microBatch: data.ops.micro_batch[i],
  chunk: data.ops.chunk[i], communication: data.ops.communication[i] === 1, times: null,
}));

// What the two sides join by: ops of two programs may differ in lane and kind.
const sameOps = new Map();
for (const op of ops) {
  const key = [op.path, op.phase, op.microBatch, op.chunk].join('\n');
  if (!sameOps.has(key)) sameOps.set(key, []);
  sameOps.get(key).push(op);
  op.same = sameOps.get(key);
}
data.compare.ops.op.forEach((op, i) => {
  for (const each of ops[op].same) {
    each.times = {
      predicted: data.compare.ops.predicted[i], measured: data.compare.ops.measured[i]};
  }
});
function isSame(op, other) { return Boolean(op && other) && op.same === other.same; }

// "layer.7/moe/experts" and its sisters are one row: "layer.*/moe/experts".
function withoutLayer(path) { return path.replace(/^(layers?)\.\d+(?=\/|$)/, '$1.*'); }

// The ranks of one step of a side, decoded once: [{rank, role, start, end, spans, wire}].
const decoded = new Map();
function stepOf(side, step) {
  if (!side) return null;
  const key = (side === predicted ? 'p' : 'm') + step;
  if (!decoded.has(key)) {
    const found = side.timeline.steps.find((s) => s.step === step);
    decoded.set(key, found ? found.ranks.map(decodeRank) : null);
  }
  return decoded.get(key);
}

function decodeRank(row) {
  let at = 0;
  const spans = row.op.map((op, i) => {
    at += row.at[i];
    return {op: ops[op], start: at, end: at + row.ns[i], rank: row.rank,
      count: row.count ? row.count[i] : 1, busy: row.busy ? row.busy[i] : row.ns[i]};
  });
  const wire = new Map();
  if (row.wire) {
    row.wire.op.forEach((op, i) => wire.set(op, {
      wait: row.wire.wait[i], sent: row.wire.sent[i], received: row.wire.received[i]}));
  }
  return {rank: row.rank, role: row.role, start: row.start, end: row.end, spans, wire};
}

function timelineSteps(side) { return side ? side.timeline.steps.map((s) => s.step) : []; }

// What is chosen on the page; parts listen for changes.
const state = {step: null, op: null, search: ''};
const listeners = [];
function onChange(listener) { listeners.push(listener); }
function change(values) {
  Object.assign(state, values);
  for (const listener of listeners) listener(values);
}

// The one step that a prediction has.
const predictedStep = predicted ? predicted.default_step : null;
state.step = main.default_step;

// The breakdown of a side in a step, as {compute, exposed, hidden, idle} by phase; null if unknown.
function breakdownOf(side, step) {
  if (!side) return null;
  const found = side.breakdown.steps.find((s) => s.step === step);
  if (!found) return null;
  const phases = new Map();
  side.breakdown.phases.forEach((phase, i) => phases.set(phase, {
    compute: found.compute[i], exposed: found.exposed[i], hidden: found.hidden[i],
    idle: found.idle[i]}));
  return phases;
}

function sumParts(phases) {
  const sum = {compute: 0, exposed: 0, hidden: 0, idle: 0};
  for (const parts of phases.values()) {
    for (const name of Object.keys(sum)) sum[name] += parts[name];
  }
  return sum;
}
