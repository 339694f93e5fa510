// Galleries: groups of pictures, made when they come near the window.
const groupsAtOnce = 24;
const tilesAtOnce = 60;

function groupBox(gallery, group, isOnly) {
  const marked = new Set(group.marks);
  const few = !isOnly && group.rows.length <= 6;
  const box = element("figure", { className: few ? "group narrow" : "group wide" });
  const count = Math.max(1, group.rows.length);
  box.style.setProperty("--across", count);
  for (const most of [12, 6, 4]) { // columns of rows about as long as each other, so that no picture is alone in the last
    box.style.setProperty(`--of-${most}`, Math.ceil(count / Math.ceil(count / most)));
  }
  const select = element("button", {
    type: "button", textContent: "Select", "aria-label": `Select ${group.caption || gallery.title}`,
    onclick: () => toggleSelected(group.rows, true),
  });
  const tiles = element("div", { className: "tiles" });
  fillInSteps(tiles, group.rows.length, tilesAtOnce, (i) =>
    tile(group.rows[i], group.notes[i] ?? "", marked.has(group.rows[i]) ? gallery.mark : ""));
  box.append(element("figcaption", { className: "head" },
    element("bdi", { textContent: group.caption || plural(group.rows.length) }), select), tiles);
  return box;
}

function fillGallery(section) {
  const gallery = state.galleries[Number(section.dataset.gallery)];
  const box = section.querySelector(".groups");
  if (!gallery.groups.length) {
    box.append(element("p", { className: "hint", textContent: "None." }));
    return;
  }
  fillInSteps(box, gallery.groups.length, groupsAtOnce, (i) => groupBox(gallery, gallery.groups[i], gallery.groups.length === 1));
}

function watchGalleries() {
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        watcher.unobserve(target);
        fillGallery(target);
      }
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll(".gallery").forEach((section) => watcher.observe(section));
}
