// Connects the page's controls with what they do, and draws the map.
const colourChoice = byId("colour-by");
const columns = [...state.columns];
colourChoice.append(...columns.map((column, i) => element("option", { value: i, textContent: column.title })));
colourChoice.parentElement.hidden = !columns.length;
const recolour = () => {
  const column = columns[Number(colourChoice.value)];
  colourBy(column);
  showLegend(column);
};

drawMap(columns[0]);
showLegend(columns[0]);
showSelection();
watchGalleries();

colourChoice.addEventListener("change", recolour);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", styleMap);
for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
byId("zoom-in").addEventListener("click", () => zoom(0.7));
byId("zoom-out").addEventListener("click", () => zoom(1 / 0.7));
byId("zoom-all").addEventListener("click", () => Plotly.relayout(map, { "xaxis.autorange": true, "yaxis.autorange": true }));
byId("copy-names").addEventListener("click", () => copyNames([...selected].sort((a, b) => a - b)));
byId("download-list").addEventListener("click", () => downloadList([...selected].sort((a, b) => a - b)));
byId("clear-selection").addEventListener("click", () => setSelection([]));
byId("select-view").addEventListener("click", () => setSelection(pointsInView()));
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = event.target.querySelector("input").value.toLowerCase();
  const matches = words ? state.names.flatMap((name, p) => (name.toLowerCase().includes(words) ? [p] : [])) : [];
  setSelection(matches);
  announce(`${plural(matches.length)} found`);
});
map.addEventListener("keydown", (event) => {
  const action = mapKeys[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
});
map.addEventListener("blur", hideTip);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closePanel();
});
