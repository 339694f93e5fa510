// The page's state and plotly.js are compressed (packed_text of state.py); the browser unpacks them.
if (typeof DecompressionStream === "undefined") {
  const text = "This page needs a browser of 2023 or later (Chrome 80, Safari 16.4, Firefox 113 or newer).";
  document.querySelector("main").prepend(Object.assign(document.createElement("p"), { textContent: text }));
  return;
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

document.head.append(Object.assign(document.createElement("script"), { textContent: await unpacked("plotly") }));
