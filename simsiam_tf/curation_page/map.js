// The map: plotly's scattergl, with moving, zooming, lasso and box; and the selection.
const selected = new Set();
const map = byId("map");
const styles = () => getComputedStyle(document.documentElement);
const colourOf = (name) => styles().getPropertyValue(name).trim();
const sizeByCount = onMap.length > 10000 ? 4 : onMap.length > 2000 ? 6 : onMap.length > 400 ? 8 : 10;
const pointSize = innerWidth < 600 ? Math.max(3, 0.7 * sizeByCount) : sizeByCount;
const marks = ["circle", "square", "diamond", "triangle-up", "cross"];  // scattergl's symbols
let removingOutline = false;
let atPoint = null;  // the picture that arrow keys are at

function hasWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl") || canvas.getContext("webgl2"));
}

function drawMap(column) {
  const ink = colourOf("--ink");
  const type = hasWebGL() ? "scattergl" : "scatter";
  const points = {
    type, mode: "markers", hoverinfo: "none", x: onMap.map((p) => state.x[p]), y: onMap.map((p) => state.y[p]),
    marker: { ...markerStyle(column), size: pointSize, opacity: 0.85, line: { width: 0.7, color: "rgba(128,128,128,.7)" } },
    selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.16 } },
  };
  const ring = (size, width) => ({
    type, mode: "markers", hoverinfo: "skip", x: [], y: [],
    marker: { size, symbol: "circle-open", color: ink, line: { width, color: ink } },
  });
  const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "", showline: false };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, dragmode: "pan", hovermode: "closest", hoverdistance: 12,
    xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: "x" }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    newselection: { line: { width: 2, color: ink } }, selectionrevision: 1,
  };
  const options = { displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: "reset", showTips: false };
  Plotly.newPlot(map, [points, ring(pointSize + 6, 1.5), ring(pointSize + 12, 3)], layout, options);
  map.on("plotly_hover", ({ points: [point], event }) => showTip(onMap[point.pointIndex], event));
  map.on("plotly_unhover", hideTip);
  map.on("plotly_click", ({ points: [point] }) => openPicture(onMap[point.pointIndex], map));
  map.on("plotly_selected", (event) => {
    if (event?.points && !removingOutline) setSelection(event.points.filter((p) => p.curveNumber === 0).map((p) => onMap[p.pointIndex]), true);
  });
  map.on("plotly_deselect", () => removingOutline || setSelection([]));
}

// Colours that depend on the light or dark scheme.
function styleMap() {
  const ink = colourOf("--ink");
  Plotly.restyle(map, { "marker.color": ink, "marker.line.color": ink }, [1, 2]);
  Plotly.relayout(map, { "newselection.line.color": ink });
}

// Rings around a picture and its neighbours.
function ringPictures(picture, neighbours) {
  const near = neighbours.filter((other) => pointOf.has(other));
  const own = pointOf.has(picture) ? [picture] : [];
  const places = (key) => [near.map((p) => state[key][p]), own.map((p) => state[key][p])];
  Plotly.restyle(map, { x: places("x"), y: places("y") }, [1, 2]);
}

// fromMap: whether the lasso or the box made it, whose outline then stays.
async function setSelection(pictures, fromMap = false) {
  selected.clear();
  pictures.forEach((picture) => selected.add(picture));
  showSelection();
  if (!fromMap && map.layout.selections?.length) {
    removingOutline = true;  // then plotly tells that no point is selected
    await Plotly.relayout(map, { selections: [] });
    removingOutline = false;
  }
  const points = [...selected].filter((p) => pointOf.has(p)).map((p) => pointOf.get(p));
  await Plotly.restyle(map, { selectedpoints: [selected.size ? points : null] }, [0]);
}

function toggleSelected(pictures, on) {
  const next = new Set(selected);
  pictures.forEach((picture) => (on ? next.add(picture) : next.delete(picture)));
  setSelection([...next]);
}

function showSelection() {
  const pictures = [...selected].sort((a, b) => a - b);
  byId("selection-title").textContent = pictures.length ? `${plural(pictures.length)} selected` : "Nothing selected";
  byId("selection-hint").hidden = pictures.length > 0;
  for (const id of ["copy-names", "download-list", "clear-selection"]) byId(id).disabled = !pictures.length;
  fillInSteps(byId("selected-tiles"), pictures.length, 60, (i) => tile(pictures[i]));
  for (const made of document.querySelectorAll(".tile")) {
    made.classList.toggle("selected", selected.has(Number(made.dataset.picture)));
  }
  showPressed();
}

const view = () => ({ x: map.layout.xaxis.range.map(Number), y: map.layout.yaxis.range.map(Number) });

function pointsInView() {
  const { x, y } = view();
  return onMap.filter((p) => state.x[p] >= x[0] && state.x[p] <= x[1] && state.y[p] >= y[0] && state.y[p] <= y[1]);
}

function setView(x, y) {
  return Plotly.relayout(map, { "xaxis.range": x, "yaxis.range": y });
}

function zoom(factor) {
  const around = ([low, high]) => {
    const middle = (low + high) / 2;
    return [middle + (low - middle) * factor, middle + (high - middle) * factor];
  };
  setView(around(view().x), around(view().y));
}

function setMode(mode) {
  Plotly.relayout(map, { dragmode: mode });
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
}

// Brings a picture's point into view, where it is not.
function bringIntoView(picture) {
  const { x, y } = view();
  const moved = ([low, high], at) => (at < low || at > high ? [at - (high - low) / 2, at + (high - low) / 2] : [low, high]);
  const [nextX, nextY] = [moved(x, state.x[picture]), moved(y, state.y[picture])];
  if (nextX[0] !== x[0] || nextY[0] !== y[0]) setView(nextX, nextY);
}

// The nearest point in a direction, within 45 degrees of it; without a start, that nearest to the middle.
function pointTowards(dx, dy) {
  const { x, y } = view();
  const [fromX, fromY] = atPoint === null
    ? [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2] : [state.x[atPoint], state.y[atPoint]];
  let best = null;
  let least = Infinity;
  for (const picture of onMap) {
    const [byX, byY] = [state.x[picture] - fromX, state.y[picture] - fromY];
    const ahead = byX * dx + byY * dy;
    const aside = Math.abs(byX * dy) + Math.abs(byY * dx);
    const distance = atPoint === null ? Math.hypot(byX, byY) : ahead + aside;
    if (picture !== atPoint && distance < least && (atPoint === null || (ahead > 0 && aside <= ahead))) {
      best = picture;
      least = distance;
    }
  }
  return best;
}

function goTo(picture) {
  if (picture === null) return;
  atPoint = picture;
  bringIntoView(picture);
  ringPictures(picture, []);
  const axes = map._fullLayout;
  const corner = map.getBoundingClientRect();
  showTip(picture, {
    clientX: corner.left + axes.xaxis._offset + axes.xaxis.d2p(state.x[picture]),
    clientY: corner.top + axes.yaxis._offset + axes.yaxis.d2p(state.y[picture]),
  });
  announce([shownName(picture), ...facts(picture).map(([title, text]) => `${title} ${text}`)].join(", "));
}

const mapKeys = {
  ArrowLeft: () => goTo(pointTowards(-1, 0)), ArrowRight: () => goTo(pointTowards(1, 0)),
  ArrowUp: () => goTo(pointTowards(0, 1)), ArrowDown: () => goTo(pointTowards(0, -1)),
  Enter: () => atPoint !== null && openPicture(atPoint, map),
  " ": () => atPoint !== null && toggleSelected([atPoint], !selected.has(atPoint)),
  "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7),
};

function showTip(picture, at) {
  const tip = byId("tip");
  const lines = facts(picture).slice(0, 3).map(([title, text]) => element("div", { textContent: `${title}: ${text}` }));
  tip.replaceChildren(pictureBox(picture), element("bdi", { className: "name", textContent: shownName(picture) }), ...lines);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const place = (start, size, limit) => (start + 14 + size > limit ? Math.max(4, start - 14 - size) : start + 14);
  tip.style.left = `${place(at.clientX, width, innerWidth)}px`;
  tip.style.top = `${place(at.clientY, height, innerHeight)}px`;
  map.style.cursor = "pointer";
}

function hideTip() {
  byId("tip").hidden = true;
}
