// Lists of pictures, as --data=list: takes them.

function listName(picture) {
  const { prefix, texts } = state.lists;
  return texts ? texts[picture] : prefix + state.names[picture];
}

// A name a line; or, where a name could not be read back from that, a CSV file with the column path.
function listText(pictures) {
  const names = pictures.map(listName);
  const isPlain = (name) => name.trim() && !/^[#\uFEFF]|[\r\n]/.test(name);
  const header = names.length ? names[0].replaceAll('"', "").split(",") : [];
  if (names.every(isPlain) && !header.includes("path")) return names.map((name) => `${name}\n`).join("");
  return ["path", ...names.map((name) => `"${name.replaceAll('"', '""')}"`)].map((line) => `${line}\n`).join("");
}

// UTF-8, but for the lone surrogates U+DC80 to U+DCFF, which are the bytes 0x80 to 0xFF of a name.
function listBytes(text) {
  const encoder = new TextEncoder();
  const parts = text.split(/((?<![\uD800-\uDBFF])[\uDC80-\uDCFF]+)/);
  return parts.map((part, at) => {
    if (at % 2 === 0) return encoder.encode(part);
    return Uint8Array.from(part, (half) => half.charCodeAt(0) - 0xdc00);
  });
}

function downloadList(pictures) {
  const address = URL.createObjectURL(new Blob(listBytes(listText(pictures)), { type: "text/plain" }));
  const link = element("a", { href: address, download: "selection.txt" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  announce(`Downloaded a list of ${plural(pictures.length)}`);
}

async function copyNames(pictures) {
  const text = listText(pictures);
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // such as from a file in some browsers
    const area = element("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce(`Copied ${plural(pictures.length)}`);
}
