// The document of a page that shows a job over all axes: there is no trace in it.
const data = JSON.parse(document.getElementById('data').textContent);
