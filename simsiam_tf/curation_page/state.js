// The page's state, and what other parts ask of it. Pictures are numbers: places in state.names.
const state = JSON.parse(await unpacked("state"));
const onMap = state.mapped;  // pictures of the map's points
const pointOf = new Map(onMap.map((picture, point) => [picture, point]));

const byId = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const shortNumber = (value) => String(Number.isInteger(value) ? value : Number(value.toPrecision(3)));
const plural = (count) => `${number(count)} ${count === 1 ? "picture" : "pictures"}`;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A name as it can be shown: undecodable bytes and control characters are escaped.
const shownName = (picture) => state.printable[picture] ?? state.names[picture];

function announce(text) {
  byId("announcer").textContent = text;
}

// The address of a thumbnail, or null. thumbnail_name of thumbnails.py makes the same.
function thumbnail(picture) {
  const { folder, places, types, data } = state.thumbnails;
  const place = places[picture];
  const ending = types[place];
  if (!ending) return null;
  if (data) return `data:image/${ending === "jpg" ? "jpeg" : ending};base64,${data[place]}`;
  return `${folder.split("/").map(encodeURIComponent).join("/")}${Math.floor(place / 1000)}/${place}.${ending}`;
}

// What is known of a picture: [title, text] of each column.
function facts(picture) {
  return state.columns.flatMap((column) => {
    if (column.codes) {
      const code = column.codes[picture];
      return code < 0 ? [] : [[column.title, column.names[code]]];
    }
    const value = column.values[picture];
    return value === null ? [] : [[column.title, shortNumber(value)]];
  });
}
