// Small pictures with their names, each a button that opens its neighbours.

// The picture, or its name where it cannot be read.
function pictureBox(picture, alt = "") {
  const box = element("span", { className: "picture" });
  const unread = () => box.replaceChildren(
    element("span", { className: "unread", dir: "auto", textContent: `No picture: ${shownName(picture)}` }));
  const address = thumbnail(picture);
  if (address === null) {
    unread();
    return box;
  }
  const image = element("img", { alt, loading: "lazy", decoding: "async", onerror: unread });
  image.onload = () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= 48);
  image.src = address;
  box.append(image);
  return box;
}

function tile(picture, note = "", mark = "") {
  const name = shownName(picture);
  const words = [name, mark, note].filter(Boolean).join(", ");
  const made = element("button", { type: "button", className: "tile", title: name, "aria-label": words },
    pictureBox(picture),
    element("bdi", { className: "name", textContent: name.split("/").pop() || name }),
    mark ? element("span", { className: "mark", textContent: mark }) : null,
    note ? element("bdi", { className: "note", textContent: note, title: note }) : null);
  made.dataset.picture = picture;
  made.classList.toggle("marked", Boolean(mark));
  made.classList.toggle("selected", selected.has(picture));
  return made;
}

// Fills a box with the first of many items; a button adds as many more.
function fillInSteps(box, count, step, make) {
  let shown = 0;
  const more = element("button", { type: "button", className: "more" });
  const add = (focus) => {
    const first = shown;
    shown = Math.min(count, shown + step);
    more.remove();
    for (let i = first; i < shown; i += 1) box.append(make(i));
    more.textContent = `Show ${number(Math.min(step, count - shown))} more of ${number(count)}`;
    if (shown < count) box.append(more);
    if (focus) (box.children[first].matches("button") ? box.children[first] : box.children[first].querySelector("button"))?.focus();
  };
  more.addEventListener("click", () => add(true));
  box.replaceChildren();
  add(false);
}

document.addEventListener("click", (event) => {
  const pressed = event.target.closest?.(".tile");
  if (pressed) openPicture(Number(pressed.dataset.picture), pressed);
});
