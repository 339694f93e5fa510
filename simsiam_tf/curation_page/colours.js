// Colouring of the map, and its legend: buttons for categories, a bar for numbers.
// Paul Tol's scheme "bright", safe for colour-blind readers (SRON/EPS/TN/09-002); then the same with other marks.
const categoryColours = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];
const other = "#8b949c";  // pictures without a value, and categories beyond those with a colour and mark
const viridis = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];
const shapes = {  // marks in the legend, in a box of 12 by 12
  circle: "M6 1a5 5 0 1 0 .01 0z", square: "M1.5 1.5h9v9h-9z", diamond: "M6 0l6 6-6 6-6-6z",
  "triangle-up": "M6 1l6 10.4H0z", cross: "M4 0h4v4h4v4H8v4H4V8H0V4h4z",
};

// [code, count] of a column's categories on the page, the most frequent first.
function ranked(column) {
  const counts = new Map();
  for (const code of column.codes) if (code >= 0) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

function categoryLook(rank) {
  const known = rank < categoryColours.length * marks.length;
  const mark = marks[Math.floor(rank / categoryColours.length)];
  return known ? { colour: categoryColours[rank % categoryColours.length], mark } : { colour: other, mark: "circle" };
}

function mixed(share) {
  const at = Math.min(Math.max(share, 0), 1) * (viridis.length - 1);
  const low = Math.min(Math.floor(at), viridis.length - 2);
  const channel = (text, i) => parseInt(text.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mix = [0, 1, 2].map((i) => Math.round(
    channel(viridis[low], i) + (at - low) * (channel(viridis[low + 1], i) - channel(viridis[low], i))));
  return `rgb(${mix})`;
}

// Colours and marks of the map's points.
function markerStyle(column) {
  if (!column) return { color: categoryColours[0], symbol: "circle" };
  if (!column.codes) {
    const [low, high] = column.range;
    const colours = onMap.map((p) => {
      const value = column.values[p];
      return value === null ? other : mixed(high > low ? (value - low) / (high - low) : 0.5);
    });
    return { color: colours, symbol: "circle" };
  }
  const looks = new Map(ranked(column).map(([code], rank) => [code, categoryLook(rank)]));
  const look = (p) => looks.get(column.codes[p]) ?? { colour: other, mark: "circle" };
  return { color: onMap.map((p) => look(p).colour), symbol: onMap.map((p) => look(p).mark) };
}

function colourBy(column) {
  const { color, symbol } = markerStyle(column);
  return Plotly.restyle(map, { "marker.color": [color], "marker.symbol": [symbol] }, [0]);
}

function markIcon({ colour, mark }) {
  const space = "http://www.w3.org/2000/svg";
  const icon = document.createElementNS(space, "svg");
  for (const [name, value] of [["viewBox", "0 0 12 12"], ["width", 12], ["height", 12], ["aria-hidden", "true"]]) icon.setAttribute(name, value);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", shapes[mark]);
  path.setAttribute("fill", colour);
  icon.append(path);
  return icon;
}

function showLegend(column) {
  const legend = byId("legend");
  legend.replaceChildren();
  if (!column) return;
  if (!column.codes) {
    const [low, high] = column.range.map(shortNumber);
    const [least, most] = column.extremes;
    const bar = element("div", { className: "bar", role: "img", "aria-label": `Colours from ${low}, dark blue, to ${high}, yellow` });
    bar.style.background = `linear-gradient(to right, ${viridis.join(", ")})`;
    legend.append(bar, element("div", { className: "ends" },
      element("span", { textContent: least < column.range[0] ? `≤ ${low}` : low }),
      element("span", { textContent: most > column.range[1] ? `≥ ${high}` : high })));
    if (column.about) legend.append(element("p", { textContent: column.about }));
    return;
  }
  const buttons = element("div", { className: "categories", role: "group", "aria-label": `Select by ${column.title}` });
  const order = ranked(column);
  fillInSteps(buttons, order.length, categoryColours.length * marks.length, (rank) => {
    const [code, count] = order[rank];
    const button = element("button", { type: "button", "aria-pressed": "false", title: `Select ${column.names[code]}` },
      markIcon(categoryLook(rank)), element("bdi", { className: "text", textContent: column.names[code] }),
      element("span", { className: "count", textContent: number(count) }));
    const members = state.names.flatMap((_, p) => (column.codes[p] === code ? [p] : []));
    button.members = members;
    button.addEventListener("click", () => toggleSelected(members, button.getAttribute("aria-pressed") !== "true"));
    return button;
  });
  legend.append(buttons);
  if (order.length > categoryColours.length * marks.length) {
    legend.append(element("p", { textContent: "The smaller categories are gray." }));
  }
  showPressed();
}

// A category's button is pressed while all of its pictures are selected.
function showPressed() {
  for (const button of document.querySelectorAll("#legend .categories button")) {
    if (button.members) button.setAttribute("aria-pressed", String(button.members.every((p) => selected.has(p))));
  }
}
