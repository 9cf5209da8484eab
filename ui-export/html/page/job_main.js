// The order of a page about a job over all axes, and its own tests (see selftest.js).
function fail(error) {
  document.documentElement.dataset.failed = String(error && error.stack || error);
  document.getElementById('main').prepend(h('p', {class: 'notice bad'},
    'A part of this page could not be drawn: ' + error));
}
window.addEventListener('error', (event) => fail(event.error || event.message));

function showAnswerHead() {
  const root = document.getElementById('main');
  document.title = answerTitle() + ' – Orrery plan';
  const job = [answer.model + ' (' + text.count(answer.parameters) + ' parameters, ' +
    text.count(answer.active_parameters) + ' active)', text.plural(answer.devices, 'device') +
    ' (' + answer.device + ')', text.whole(answer.sequences) + ' sequences of ' +
    text.whole(answer.sequence_tokens) + ' tokens a step', answer.stack];
  root.append(h('div', {class: 'head'}, h('div', {}, h('h1', {}, answerTitle()),
    h('p', {class: 'sub'}, job.filter(Boolean).join(' · ')))), answerSentence(), answerFigures(),
  h('div', {style: 'height:14px'}));
}

function showFoot() {
  const foot = document.getElementById('foot');
  for (const line of [...data.remarks, ...data.omitted]) foot.append(h('p', {class: 'note'}, line));
  foot.append(h('p', {class: 'note'},
    'Nothing was measured: all times and bytes are predictions. This page needs no network and ' +
    'holds all it shows.'));
}

function testJob() {
  const lines = [];
  const check = (name, good) => lines.push(name + ': ' + (good ? 'ok' : 'FAILED'));
  const body = document.getElementById('main').textContent;
  check('answer said', body.includes(text.seconds(answer.winner.step_s)));
  for (const canvas of document.querySelectorAll('canvas')) {
    check('drawn ' + canvas.id, inked(canvas));
    hideTip();
    const box = canvas.getBoundingClientRect();
    point(canvas, 'pointermove', box.width * 0.6, Math.min(box.height * 0.5, 60));
    check('hover tells of ' + canvas.id, !tip.hidden && tip.textContent.length > 0);
  }
  for (const bar of document.querySelectorAll('.family-bar:not(.none)')) {
    check('bar of a width', bar.querySelectorAll('i').length > 0 && bar.clientWidth > 50);
  }
  check('no overflow', document.documentElement.scrollWidth <= window.innerWidth);
  const button = document.getElementById('theme'), theme = document.documentElement.dataset.theme;
  button.click();
  check('theme changes', document.documentElement.dataset.theme !== theme);
  check('no request', performance.getEntriesByType('resource').length === 0);
  document.body.append(h('pre', {id: 'selftest'}, lines.join('\n')));
}

document.body.append(tip);
setUpTheme();
for (const part of [showAnswerHead, showFamilies, showFrontier, showCapacity, showLayout,
  showSchedule, showSearch, showFoot]) {
  try { part(); } catch (error) { fail(error); throw error; }
}
redrawAll();
document.documentElement.dataset.drawn = 'yes';
if (location.hash === '#selftest') testJob();
