// Light or dark: as the system says, until the button says otherwise. Paper is always light.
function setUpTheme() {
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const button = document.getElementById('theme');
  let chosen = null;
  const apply = (forced) => {
    const dark = forced === undefined ? (chosen === null ? system.matches : chosen) : forced;
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    button.textContent = dark ? 'Light' : 'Dark';
    button.setAttribute('aria-label', dark ? 'Use light colours' : 'Use dark colours');
    redrawAll();
  };
  button.addEventListener('click', () => {
    chosen = document.documentElement.dataset.theme !== 'dark';
    apply();
  });
  system.addEventListener('change', () => apply());
  window.addEventListener('beforeprint', () => apply(false));
  window.addEventListener('afterprint', () => apply());
  if (location.hash === '#dark') chosen = true;
  apply();
}
