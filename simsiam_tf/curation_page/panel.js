// The side panel: one picture, what is known of it, and its neighbours.
const panel = byId("panel");
const trail = [];  // pictures to go back to
let opener = null;  // the element that has the focus again once the panel closes

function openPicture(picture, from = null, back = false) {
  if (panel.hidden) {
    opener = from ?? document.activeElement;
    trail.length = 0;
  } else if (!back && panel.picture !== picture) trail.push(panel.picture);
  hideTip();
  panel.picture = picture;
  const neighbours = state.neighbours[picture];
  const button = (text, action) => element("button", { type: "button", textContent: text, onclick: action });
  const select = button("", () => {
    toggleSelected([picture], !selected.has(picture));
    nameSelect();
  });
  const nameSelect = () => (select.textContent = selected.has(picture) ? "Unselect" : "Select");
  nameSelect();
  const details = facts(picture).flatMap(([title, text]) => [
    element("dt", { textContent: title }), element("dd", {}, element("bdi", { textContent: text }))]);
  panel.replaceChildren(
    element("div", { className: "top" },
      element("span", { className: "actions" },
        trail.length ? button("Back", () => openPicture(trail.pop(), null, true)) : null, select,
        button("Copy name", () => copyNames([picture])),
        pointOf.has(picture) ? button("On the map", () => showOnMap(picture)) : null),
      element("button", { type: "button", id: "close-panel", textContent: "Close", onclick: closePanel })),
    element("div", { className: "large" }, pictureBox(picture, shownName(picture))),
    element("h2", { id: "panel-title" }, element("bdi", { textContent: shownName(picture) })),
    element("dl", {}, ...details),
    ...neighbourTiles(picture, neighbours));
  panel.hidden = false;
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
  for (const made of document.querySelectorAll(".tile")) {
    if (Number(made.dataset.picture) === picture) made.setAttribute("aria-current", "true");
    else made.removeAttribute("aria-current");
  }
  if (pointOf.has(picture)) atPoint = picture;
  ringPictures(picture, neighbours ?? []);
}

function neighbourTiles(picture, neighbours) {
  if (!state.neighbours.length) return [];
  if (!neighbours) {
    const text = `This page holds ${number(state.names.length)} of ${plural(state.count)}, and not the neighbours of this one.`;
    return [element("p", { className: "hint", textContent: text })];
  }
  const cosines = state.cosines[picture];
  const box = element("div", { className: "tiles" });
  box.append(...neighbours.map((other, i) => tile(other, cosines ? `cosine ${cosines[i].toFixed(3)}` : "")));
  const fewer = neighbours.length < state.k && (state.count > state.names.length || state.k > state.shown);
  const note = `${neighbours.length} of its ${state.k} neighbours are on this page; the table has all.`;
  return [element("h3", { textContent: "Neighbours, the nearest first" }), box,
    fewer ? element("p", { className: "hint", textContent: note }) : ""];
}

function showOnMap(picture) {
  if (matchMedia("(max-width: 34rem)").matches) closePanel();
  byId("map-section").scrollIntoView();
  bringIntoView(picture);
  ringPictures(picture, state.neighbours[picture] ?? []);
}

function closePanel() {
  if (panel.hidden) return;
  panel.hidden = true;
  ringPictures(-1, []);
  document.querySelectorAll(".tile[aria-current]").forEach((made) => made.removeAttribute("aria-current"));
  if (opener?.isConnected) opener.focus({ preventScroll: true });
}
