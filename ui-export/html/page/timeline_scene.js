// What the timeline draws, without a canvas: rows of spans, a window of time, what is where.

const LANES = ['compute', 'fsdp', 'ep', 'sp', 'pp', 'd2h', 'h2d', 'host'];
const ROW_GAP = 2, SIDE_GAP = 4, RANK_GAP = 12, TOP = 24, GUTTER = 148;

// The predicted rank that stands for a measured one: itself, else one of its role, else the first.
function standIn(ranks, wanted) {
  return ranks.find((r) => r.rank === wanted.rank) ||
    ranks.find((r) => r.role === wanted.role && r.role >= 0) || ranks[0];
}

function lanesOf(rank) {
  const there = [...new Set(rank.spans.map((span) => span.op.lane))];
  const place = (lane) => (LANES.indexOf(lane) + 99) % 99;
  return there.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}

class Scene {
  constructor() {
    this.rows = [];      // {rank, who, lane, y, spans, label}
    this.ends = [];      // {who, at}: where a step ended
    this.from = 0;
    this.to = 1;
    this.extent = 1;
    this.row = 15;       // height of a row: taller where there are few
    this.height = TOP + this.row;
  }

  // `wanted`: ranks to show; the window stays where the step has the same length.
  build(step, wanted) {
    const before = stepOf(predicted, predictedStep) || [];
    const after = stepOf(measured, step) || [];
    const shown = (after.length > 0 ? after : before).filter((r) => wanted.has(r.rank));
    this.rows = [];
    this.ends = [];
    const lanes = (ranks) => ranks.reduce((sum, rank) => sum + lanesOf(rank).length, 0);
    this.row = lanes(shown) + (after.length > 0 ? lanes(before.slice(0, shown.length)) : 0) <= 8 ?
      26 : 15;
    let y = TOP, extent = 1;
    for (const rank of shown) {
      const pairs = [];
      if (before.length > 0) pairs.push(['predicted', standIn(before, rank)]);
      if (after.length > 0) pairs.push(['measured', rank]);
      pairs.forEach(([who, side], i) => {
        if (i > 0) y += SIDE_GAP;
        lanesOf(side).forEach((lane, k) => {
          this.rows.push({rank: rank.rank, from: side.rank, who, lane, y, side,
            first: i === 0 && k === 0, spans: side.spans.filter((s) => s.op.lane === lane)});
          y += this.row + ROW_GAP;
        });
        for (const span of side.spans) extent = Math.max(extent, span.end);
        if (side.end !== null) extent = Math.max(extent, side.end);
      });
      y += RANK_GAP;
    }
    for (const [who, ranks] of [['predicted', before], ['measured', after]]) {
      const ends = ranks.map((r) => r.end).filter((end) => end !== null);
      if (ends.length > 0) this.ends.push({who, at: Math.max(...ends)});
    }
    this.height = Math.max(y, TOP + this.row);
    if (extent !== this.extent) {
      this.extent = extent;
      this.fit();
    }
  }

  fit() { this.from = 0; this.to = this.extent * 1.01; }

  x(at, width) { return GUTTER + (at - this.from) / (this.to - this.from) * (width - GUTTER); }
  at(x, width) { return this.from + (x - GUTTER) / (width - GUTTER) * (this.to - this.from); }

  // Never narrower than 200 ns, never wider than the step and a little.
  look(from, to) {
    const widest = this.extent * 1.01;
    const length = Math.min(Math.max(to - from, 200), widest);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - length / 2, 0), widest - length);
    this.to = this.from + length;
  }

  zoom(factor, at) {
    this.look(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }

  pan(share) {
    const length = this.to - this.from;
    const from = Math.min(Math.max(this.from + share * length, 0),
      this.extent * 1.01 - length);
    this.look(from, from + length);
  }

  isWhole() { return this.to - this.from >= this.extent * 1.009; }

  rowAt(y) { return this.rows.find((row) => y >= row.y - 1 && y <= row.y + this.row + 1) || null; }

  // The span under a point: the nearest within three pixels.
  hit(x, y, width) {
    const row = this.rowAt(y);
    if (!row || x < GUTTER) return null;
    const at = this.at(x, width), slack = 3 * (this.to - this.from) / (width - GUTTER);
    let best = null, distance = slack;
    for (const span of row.spans) {
      const away = at < span.start ? span.start - at : at > span.end ? at - span.end : 0;
      if (away < distance || (away === 0 && (!best || distance > 0))) {
        best = span;
        distance = away;
      }
    }
    return best ? {row, span: best} : null;
  }

  // Where an op is, the measured side first.
  find(op, rank) {
    const rows = this.rows.filter((row) => rank === undefined || row.rank === rank)
      .sort((a, b) => (a.who === 'measured' ? 0 : 1) - (b.who === 'measured' ? 0 : 1));
    for (const row of rows) {
      const span = row.spans.find((s) => isSame(s.op, op));
      if (span) return {row, span};
    }
    return null;
  }
}
