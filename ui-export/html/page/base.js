// What every part of the page uses: elements, figures as text, canvases that fit their box.

// h('p', {class: 'note'}, 'text', child): an element. Text is never parsed as HTML.
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
  return element;
}

// Three significant digits; a figure and its unit stay on one line.
const NBSP = '\u00a0';
function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 99.95) return value.toFixed(size >= 1000 ? 0 : 1);
  if (size >= 9.995) return value.toFixed(1);
  return size >= 0.995 ? value.toFixed(2) : value.toPrecision(size >= 0.1 ? 3 : 2);
}

const text = {
  time(ns) {
    if (ns === null || ns === undefined || !Number.isFinite(ns)) return '–';
    const size = Math.abs(ns);
    if (size === 0) return '0' + NBSP + 's';
    if (size >= 0.9995e9) return digits(ns / 1e9) + NBSP + 's';
    if (size >= 0.9995e6) return digits(ns / 1e6) + NBSP + 'ms';
    if (size >= 0.9995e3) return digits(ns / 1e3) + NBSP + 'µs';
    return Math.round(ns) + NBSP + 'ns';
  },
  seconds(s) { return s === null || s === undefined ? '–' : text.time(s * 1e9); },
  signedTime(ns) { return (ns > 0 ? '+' : ns < 0 ? '−' : '') + text.time(Math.abs(ns)); },
  bytes(bytes) {
    if (bytes === null || bytes === undefined) return '–';
    const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let at = 0, value = bytes;
    while (Math.abs(value) >= 1000 && at < names.length - 1) { value /= 1024; ++at; }
    return (at === 0 ? value : digits(value)) + NBSP + names[at];
  },
  count(value) {
    if (value === null || value === undefined) return '–';
    for (const [unit, name] of [[1e12, ' T'], [1e9, ' B'], [1e6, ' M'], [1e3, 'k']]) {
      if (Math.abs(value) >= unit) return digits(value / unit) + name.replace(' ', NBSP);
    }
    return digits(value);
  },
  whole(value) { return Math.round(value).toLocaleString('en'); },
  percent(share) {
    return share === null || !Number.isFinite(share) ? '–' : (100 * share).toFixed(1) + NBSP + '%';
  },
  signedPercent(share) {
    if (share === null || !Number.isFinite(share)) return '–';
    const value = 100 * share;
    if (Math.abs(value) < 0.05) return '0.0' + NBSP + '%';
    const size = Math.abs(value) >= 1000 ? Math.abs(value).toFixed(0) : Math.abs(value).toFixed(1);
    return (value > 0 ? '+' : '−') + size + NBSP + '%';
  },
  plural(count, noun) { return count + NBSP + noun + (count === 1 ? '' : 's'); },
};

// "100.0 ms" as a mark on an axis: "100 ms".
function mark(words) { return words.replace(/\.0+(?=\s)/, ''); }

// predicted / measured - 1; null where it says nothing.
function errorOf(predicted, measured) {
  if (predicted === null || measured === null || predicted === undefined) return null;
  if (measured === undefined) return null;
  if (measured === 0) return predicted === 0 ? 0 : null;
  return predicted / measured - 1;
}

function errorClass(error) {
  if (error === null || !Number.isFinite(error)) return '';
  return Math.abs(error) < 0.0505 ? 'good' : Math.abs(error) <= 0.2 ? 'warn' : 'bad';
}

// A colour of the style sheet, by its variable.
function colour(name) {
  const found = getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  return found || getComputedStyle(document.documentElement).getPropertyValue('--other').trim();
}

// Round steps for an axis from 0 (or `from`) to `most`.
function ticks(from, most, about) {
  if (!(most > from)) return [from];
  const rough = (most - from) / about;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const list = [];
  for (let at = Math.ceil(from / step) * step; at <= most + step * 1e-9; at += step) list.push(at);
  return list;
}

// Canvases redraw together: after a change of theme, before printing.
const plots = [];

// plot(canvas, height, draw): draw(context, width, height) in CSS pixels, now and on each resize.
// `height` may be a function.
function plot(canvas, height, draw) {
  const redraw = () => {
    const width = canvas.clientWidth;
    if (width === 0) return;  // not on the page yet
    const tall = Math.ceil(typeof height === 'function' ? height(width) : height);
    const ratio = window.devicePixelRatio || 1;
    canvas.style.height = tall + 'px';
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(tall * ratio);
    const context = canvas.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = '12px ' + colour('text');
    draw(context, width, tall);
  };
  plots.push(redraw);
  let known = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth === known) return;
    known = canvas.clientWidth;
    requestAnimationFrame(redraw);
  }).observe(canvas);
  return redraw;
}

function redrawAll() { for (const redraw of plots) redraw(); }

// One small box that follows the pointer.
const tip = h('div', {class: 'tip', hidden: true, role: 'status'});
function showTip(event, ...children) {
  tip.replaceChildren(...children.flat(Infinity).filter(Boolean));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
  const below = event.clientY + 16 + box.height < window.innerHeight;
  tip.style.left = left + 'px';
  tip.style.top = (below ? event.clientY + 16 : event.clientY - box.height - 10) + 'px';
}
function hideTip() { tip.hidden = true; }

// A section with its anchor in the bar above.
function section(id, title, lead) {
  const element = h('section', {id, 'aria-label': title}, h('h2', {}, title),
    lead && h('p', {class: 'lead'}, lead));
  document.getElementById('main').append(element);
  document.getElementById('nav').append(h('a', {href: '#' + id}, title));
  return element;
}

// A name and its value in a list of facts; nothing where there is no value.
function fact(name, value) {
  return value === null || value === undefined || value === '' ? null :
    [h('dt', {}, name), h('dd', {}, value)];
}

// Classes of memory have the colours of their order of appearance, everywhere.
const classShades = new Map();
function classColour(name) {
  if (!classShades.has(name)) classShades.set(name, 'm' + classShades.size % 9);
  return classShades.get(name);
}

function legend(pairs) {
  return h('div', {class: 'legend'}, pairs.map(([name, label]) =>
    h('span', {}, h('i', {style: 'background: var(--' + name + ')'}), label)));
}
