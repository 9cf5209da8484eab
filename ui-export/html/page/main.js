// The order of the page.
function fail(error) {
  document.documentElement.dataset.failed = String(error && error.stack || error);
  document.getElementById('main').prepend(h('p', {class: 'notice bad'},
    'A part of this page could not be drawn: ' + error));
}
window.addEventListener('error', (event) => fail(event.error || event.message));

function showFoot() {
  const foot = document.getElementById('foot');
  for (const line of data.omitted) foot.append(h('p', {class: 'note'}, line));
  const by = predicted && (data.predicted_by || 'a simulated trace, ' + predicted.file);
  if (by) foot.append(h('p', {class: 'note'}, 'The prediction: ' + by + '.'));
  const clock = measured ? Math.max(0, ...measured.ranks.map((r) => r.clock_error_ns)) : 0;
  if (clock > 0) {
    foot.append(h('p', {class: 'note'}, 'The clocks of the ranks agree within ' +
      text.time(clock) + '.'));
  }
  foot.append(h('p', {class: 'note'},
    'Errors are predicted / measured − 1. This page needs no network and holds all it shows.'));
}

document.body.append(tip);
setUpTheme();
let timeline = null;
const parts = [showHeadline, () => { timeline = showTimeline(); }, showAnswer, showBreakdown,
  showOps, showMemory, showExperts, showSteps, showPlan, showFoot];
for (const part of parts) {
  try { part(); } catch (error) { fail(error); throw error; }
}
redrawAll();
document.documentElement.dataset.drawn = 'yes';
if (location.hash === '#selftest') selfTest(timeline);
