// Draws a Scene. A span's colour is its phase; communication is hatched; what a search does not
// match fades.

const hatches = new Map();
function hatch(context, fill, under) {
  const key = fill + under;
  if (!hatches.has(key)) {
    const tile = document.createElement('canvas');
    tile.width = tile.height = 6;
    const brush = tile.getContext('2d');
    brush.fillStyle = under;
    brush.fillRect(0, 0, 6, 6);
    brush.globalAlpha = 0.38;
    brush.fillStyle = fill;
    brush.fillRect(0, 0, 6, 6);
    brush.globalAlpha = 1;
    brush.strokeStyle = fill;
    brush.lineWidth = 1.6;
    brush.beginPath();
    for (const shift of [-6, 0, 6]) { brush.moveTo(shift, 6); brush.lineTo(shift + 6, 0); }
    brush.stroke();
    hatches.set(key, context.createPattern(tile, 'repeat'));
  }
  return hatches.get(key);
}

function phaseColour(phase, palette) {
  if (!palette.has(phase)) palette.set(phase, colour(phase));
  return palette.get(phase);
}

function drawAxis(context, scene, width, height, ink) {
  const marks = ticks(scene.from, scene.to, Math.max(3, Math.floor((width - GUTTER) / 110)));
  const step = marks.length > 1 ? marks[1] - marks[0] : 1;
  const [unit, name] = scene.to >= 1e9 ? [1e9, 's'] : scene.to >= 1e6 ? [1e6, 'ms'] : [1e3, 'µs'];
  const places = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / unit) - 1e-9)));
  context.textAlign = 'center';
  context.textBaseline = 'alphabetic';
  for (const at of marks) {
    const x = Math.round(scene.x(at, width)) + 0.5;
    if (x < GUTTER) continue;
    context.strokeStyle = ink.grid;
    context.beginPath();
    context.moveTo(x, TOP - 4);
    context.lineTo(x, height);
    context.stroke();
    context.fillStyle = ink.faint;
    if (x < width - 24) context.fillText((at / unit).toFixed(places) + ' ' + name, x, 14);
  }
}

// The path, or as much of its end as there is room for.
function labelOf(context, span, room) {
  const names = span.count > 1 ? [span.count + ' ops'] :
    [span.op.path, withoutLayer(span.op.path).replace(/^layers?\.\*\//, ''),
      span.op.path.split('/').pop()];
  return names.find((name) => context.measureText(name).width <= room) || '';
}

function drawSpan(context, span, row, scene, width, ink) {
  const left = Math.max(GUTTER, scene.x(span.start, width));
  const right = Math.min(width, scene.x(span.end, width));
  if (right < GUTTER || left > width) return;
  const wide = Math.max(0.7, right - left - (right - left > 4 ? 0.6 : 0));
  const fill = phaseColour(span.op.phase, ink.palette);
  const matches = !ink.search || span.op.path.toLowerCase().includes(ink.search);
  const sliver = span.op.communication && wide <= 2.5;  // too narrow for a hatch: as light
  context.globalAlpha = !matches ? 0.13 : span.count > 1 ? 0.45 : sliver ? 0.6 : 1;
  context.fillStyle = span.op.communication && !sliver ? hatch(context, fill, ink.card) : fill;
  context.fillRect(left, row.y, wide, scene.row);
  context.globalAlpha = 1;
  if (ink.search && matches) {
    context.strokeStyle = ink.ink;
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, row.y + 0.5, Math.max(1, wide - 1), scene.row - 1);
  }
  context.font = '10.5px ' + ink.font;
  const label = wide > 24 && matches ? labelOf(context, span, wide - 8) : '';
  if (label !== '') {
    context.save();
    context.textAlign = 'left';
    context.textBaseline = 'middle';
    if (span.op.communication) {
      // A hatched ground is no ground for letters.
      context.fillStyle = ink.card;
      context.globalAlpha = 0.8;
      context.fillRect(left + 3, row.y + 2, context.measureText(label).width + 4, scene.row - 4);
      context.globalAlpha = 1;
    }
    context.fillStyle = span.op.communication || span.count > 1 ? ink.ink : ink.on;
    context.fillText(label, left + 5, row.y + scene.row / 2 + 0.5);
    context.restore();
  }
}

function drawGutter(context, scene, ink) {
  context.textBaseline = 'middle';
  context.textAlign = 'left';
  let before = '';
  for (const row of scene.rows) {
    const middle = row.y + scene.row / 2 + 0.5;
    if (row.first) {
      context.font = '600 12px ' + ink.font;
      context.fillStyle = ink.ink;
      context.fillText('rank ' + row.rank, 10, middle);
    }
    context.font = '11.5px ' + ink.font;
    const side = row.rank + row.who;
    if (side !== before) {
      context.fillStyle = ink[row.who];
      context.fillRect(60, row.y, 3, scene.row);
      context.fillText(row.who === 'predicted' ? 'sim' : 'run', 67, middle);
    } else {
      context.fillStyle = ink[row.who];
      context.fillRect(60, row.y - ROW_GAP, 3, scene.row + ROW_GAP);
    }
    before = side;
    context.fillStyle = ink.soft;
    context.fillText(row.lane, 92, middle);
  }
}

function drawEnds(context, scene, width, height, ink) {
  for (const end of scene.ends) {
    const x = Math.round(scene.x(end.at, width)) + 0.5;
    if (x < GUTTER || x > width) continue;
    context.strokeStyle = ink[end.who];
    context.lineWidth = 1.5;
    context.setLineDash([4, 3]);
    context.beginPath();
    context.moveTo(x, TOP - 6);
    context.lineTo(x, height);
    context.stroke();
    context.setLineDash([]);
    context.lineWidth = 1;
  }
}

function drawChosen(context, scene, chosen, width, ink) {
  for (const row of scene.rows) {
    for (const span of row.spans) {
      if (!isSame(span.op, chosen)) continue;
      const left = scene.x(span.start, width), right = scene.x(span.end, width);
      if (right < GUTTER || left > width) continue;
      const x = Math.max(GUTTER, left) - 1.5;
      context.strokeStyle = ink.ink;
      context.lineWidth = 2;
      context.strokeRect(x, row.y - 1, Math.max(4, Math.min(width, right) - x + 1), scene.row + 2);
      context.lineWidth = 1;
    }
  }
}

function timelineInk() {
  const dark = document.documentElement.dataset.theme === 'dark';
  return {ink: colour('ink'), soft: colour('soft'), faint: colour('faint'), grid: colour('grid'),
    card: colour('card'), predicted: colour('predicted'), measured: colour('measured'),
    on: dark ? '#101216' : '#ffffff', font: colour('text'), palette: new Map(),
    search: state.search.trim().toLowerCase()};
}

function drawScene(context, scene, width, height) {
  const ink = timelineInk();
  context.fillStyle = ink.card;
  context.fillRect(0, 0, width, height);
  drawAxis(context, scene, width, height, ink);
  for (const row of scene.rows) {
    for (const span of row.spans) drawSpan(context, span, row, scene, width, ink);
  }
  drawEnds(context, scene, width, height, ink);
  if (state.op) drawChosen(context, scene, state.op, width, ink);
  context.fillStyle = ink.card;
  context.fillRect(0, TOP - 6, GUTTER - 4, height);
  drawGutter(context, scene, ink);
}
