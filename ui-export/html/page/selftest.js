// Exercises the page by its own events when the address ends in #selftest, and leaves what it found
// in an element of that name, as lines "name: ok" or "name: FAILED".

function testTimeline(timeline, check) {
  const {scene, canvas} = timeline, width = timeline.width;
  canvas.setPointerCapture = () => {};  // there is no pointer to capture
  check('timeline in the first view', canvas.getBoundingClientRect().top < 800);
  const whole = scene.to - scene.from;
  point(canvas, 'wheel', GUTTER + 300, TOP + 5, {deltaY: -400});
  check('wheel zooms', scene.to - scene.from < 0.5 * whole);
  const from = scene.from;
  point(canvas, 'pointerdown', GUTTER + 300, TOP + 5);
  point(canvas, 'pointermove', GUTTER + 200, TOP + 5);
  point(canvas, 'pointerup', GUTTER + 200, TOP + 5);
  check('drag pans', scene.from > from && state.op === null);
  press(canvas, '0');
  check('0 shows all', scene.isWhole());
  const row = scene.rows[0], span = row.spans[Math.floor(row.spans.length / 2)];
  const x = scene.x((span.start + span.end) / 2, width);
  point(canvas, 'pointermove', x, row.y + 5);
  check('hover tells the op', !tip.hidden && tip.textContent.length > 0);
  point(canvas, 'pointerdown', x, row.y + 5);
  point(canvas, 'pointerup', x, row.y + 5);
  check('click chooses an op', state.op !== null &&
    timeline.details.textContent.includes(state.op.path));
  const before = timeline.cursor.span;
  press(canvas, 'ArrowRight');
  check('arrows move', timeline.cursor.span !== before);
  press(canvas, 'Escape');
  check('escape clears', state.op === null);
  const path = span.op.path;
  check('search finds', timeline.search(path) > 0 && timeline.found.textContent !== '');
  check('search finds nothing', timeline.search('no such op') === 0);
  timeline.search('');
  press(canvas, 'ArrowRight');
  press(canvas, '+');
  check('keys zoom', !scene.isWhole());
  press(canvas, '0');
}

function testTable(check) {
  const body = document.getElementById('op-rows');
  if (!body) return;
  const firsts = () => [...body.rows].map((row) => row.cells[0].textContent);
  const click = (name) => document.querySelector('[data-column="' + name + '"]').click();
  click('path');
  const up = firsts();
  click('path');
  const down = firsts();
  const ordered = (list) => list.every((path, i) =>
    i === 0 || list[i - 1].localeCompare(path, 'en', {numeric: true}) <= 0);
  check('table sorts', ordered(up) && ordered([...down].reverse()) &&
    (up.length < 2 || up[0] !== down[0]));
}

function selfTest(timeline) {
  const lines = [];
  const check = (name, good) => lines.push(name + ': ' + (good ? 'ok' : 'FAILED'));
  if (timeline) testTimeline(timeline, check);
  testTable(check);
  for (const canvas of document.querySelectorAll('canvas')) {
    check('drawn ' + (canvas.id || canvas.getAttribute('aria-label').slice(0, 30)), inked(canvas));
  }
  check('no overflow', document.documentElement.scrollWidth <= window.innerWidth);
  if (timelineSteps(measured).length > 1) {
    const other = timelineSteps(measured).find((step) => step !== state.step);
    change({step: other});
    check('step changes', document.getElementById('overview').textContent.includes(
      'measured, step ' + other));
  }
  const button = document.getElementById('theme'), theme = document.documentElement.dataset.theme;
  button.click();
  check('theme changes', document.documentElement.dataset.theme !== theme);
  check('no request', performance.getEntriesByType('resource').length === 0);
  document.body.append(h('pre', {id: 'selftest'}, lines.join('\n')));
}
