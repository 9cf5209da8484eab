// What the pages' own tests share: pixels, keys and pointers.
function inked(canvas) {
  if (!canvas || canvas.width === 0) return false;
  const context = canvas.getContext('2d');
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < pixels.length; i += 4) {
    seen.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
    if (seen.size > 3) return true;
  }
  return false;
}

function press(canvas, key) {
  canvas.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
}

function point(canvas, kind, x, y, more = {}) {
  const box = canvas.getBoundingClientRect();
  const values = {clientX: box.left + x, clientY: box.top + y, bubbles: true, cancelable: true};
  canvas.dispatchEvent(kind === 'wheel' ? new WheelEvent(kind, {...values, ...more}) :
    new PointerEvent(kind, {...values, pointerId: 1, ...more}));
}
