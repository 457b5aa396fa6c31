"use strict";
// Draws the report beside it. Names and texts from a run reach the page as text nodes or as escaped texts of plotly.

const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#6B6B6B"];
const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";
const GUIDER = "#0072B2", LEARNER = "#D55E00";
const GRID = { gridcolor: "#ebebeb", linecolor: "#888", zeroline: false, showline: true, ticks: "outside", ticklen: 3,
  automargin: true, title: { standoff: 6, font: { size: 11 } } };
const BASE = { font: { family: '"DejaVu Sans", Verdana, sans-serif', size: 11, color: "#222" }, colorway: COLORS,
  margin: { l: 44, r: 10, t: 34, b: 34 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", hoverlabel: { font: { size: 11 } },
  legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0, font: { size: 10 } } };
const CONFIG = { responsive: true, displaylogo: false, plotlyServerURL: "", showSendToCloud: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

let axis = "steps"; // what curves are drawn over
const drawn = new Map(); // elements to the panels in them

function bytesOf(letters) { // base 85, five letters for four bytes; see page.py
  const value = new Map([...LETTERS].map((letter, i) => [letter.charCodeAt(0), i]));
  const missing = (5 - (letters.length % 5)) % 5;
  const padded = letters + "~".repeat(missing);
  const bytes = new DataView(new ArrayBuffer((4 * padded.length) / 5));
  for (let at = 0, i = 0; i < padded.length; at += 4) {
    let word = 0;
    for (const end = i + 5; i < end; i++) word = 85 * word + value.get(padded.charCodeAt(i));
    bytes.setUint32(at, word);
  }
  return new Uint8Array(bytes.buffer, 0, bytes.byteLength - missing);
}

async function unpacked(id) {
  const bytes = bytesOf(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function element(kind, parent, text, attributes = {}) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  Object.assign(made, attributes);
  parent.append(made);
  return made;
}

// Curves and maps

function traces(panel) {
  return panel.data.map(({ xs, ...trace }) => (xs ? { ...trace, x: xs[axis] } : trace));
}

function layoutOf(panel, axes) {
  const { xaxis = {}, yaxis = {}, ...own } = panel.layout;
  const x = panel.data.some((trace) => trace.xs) ? { title: { text: axes[axis] } } : {};
  const merged = (a, b) => ({ ...GRID, ...a, ...b, title: { ...GRID.title, ...a.title, ...b.title } });
  const title = { text: panel.title, x: 0, xref: "paper", font: { size: 12.5 }, y: 0.97, yanchor: "top" };
  return { ...BASE, ...own, title, xaxis: merged(x, xaxis), yaxis: merged({}, yaxis) };
}

function draw(box, panel, axes) {
  drawn.set(box, panel);
  return Plotly.react(box, traces(panel), layoutOf(panel, axes), CONFIG);
}

function section(parent, part, axes, seen) {
  const place = element(part.folded ? "details" : "section", parent, undefined, { id: part.title.replaceAll(" ", "-") });
  element(part.folded ? "summary" : "h2", place, part.title);
  if (part.about) element("p", place, part.about);
  if (part.table) table(place, part.table);
  if (part.replay) seen(element("div", place, undefined, { className: "stage" }), (stage) => replay(stage, part.replay));
  const panels = element("div", place, undefined, { className: "panels" });
  for (const panel of part.panels || []) {
    const box = element("div", panels, undefined, { className: panel.large ? "panel large" : "panel" });
    seen(box, () => draw(box, panel, axes));
  }
}

function table(parent, { columns, rows }) {
  const body = element("table", element("div", parent, undefined, { className: "wide" }));
  const head = element("tr", element("thead", body));
  for (const name of columns) element("th", head, name);
  const lines = element("tbody", body);
  for (const { cells, differs } of rows) {
    const line = element("tr", lines, undefined, { className: differs ? "differs" : "" });
    cells.forEach((cell, i) => element(i ? "td" : "th", line, cell));
  }
}

function whenSeen() { // calls back once, when an element comes near the window
  const waiting = new Map();
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      const act = waiting.get(target);
      if (!isIntersecting || !act) continue;
      observer.unobserve(target);
      waiting.delete(target); // entries can name it twice
      act(target);
    }
  }, { rootMargin: "400px" });
  return (target, act) => { waiting.set(target, act); observer.observe(target); };
}

// Replay

function decoded({ units, changes }) { // numbers over time; see `coded` in episodes.py
  return changes.map((steps, n) => {
    let last = 0;
    return steps.map((step) => units[n] * (last += step));
  });
}

function moved(vertices, [x, y, z, w, a, b, c], out) { // vertices by a position and a quaternion that is nearly unit
  const s = 2 / (w * w + a * a + b * b + c * c);
  for (let v = 0; v < vertices.length; v += 3) {
    const [p, q, r] = [vertices[v], vertices[v + 1], vertices[v + 2]];
    out.x.push(x + p - s * ((b * b + c * c) * p - (a * b - w * c) * q - (a * c + w * b) * r));
    out.y.push(y + q - s * ((a * a + c * c) * q - (a * b + w * c) * p - (b * c - w * a) * r));
    out.z.push(z + r - s * ((a * a + b * b) * r - (a * c - w * b) * p - (b * c + w * a) * q));
  }
}

function points(scene, parts, poses, frame) { // where the vertices of parts are; without poses, of those at rest
  const out = { x: [], y: [], z: [] };
  for (const { vertices, body } of parts) {
    const pose = poses && poses.slice(7 * body, 7 * body + 7).map((numbers) => numbers[frame]);
    if (pose) [0, 1, 2].forEach((n) => (pose[n] *= scene.length));
    moved(vertices, pose || [0, 0, 0, 1, 0, 0, 0], out);
  }
  return out;
}

function mesh(parts, own, look) {
  const found = { type: "mesh3d", i: [], j: [], k: [], facecolor: [], text: [], flatshading: true, hoverinfo: "text",
    lighting: { ambient: 0.62, diffuse: 0.6, specular: 0.08, roughness: 0.9, fresnel: 0.05 },
    lightposition: { x: 2000, y: -3000, z: 5000 }, ...own, ...look };
  let first = 0;
  for (const { vertices, triangles, color, name } of parts) {
    for (let t = 0; t < triangles.length; t += 3) {
      ["i", "j", "k"].forEach((corner, n) => found[corner].push(first + triangles[t + n]));
      found.facecolor.push(color);
    }
    for (let v = 0; v < vertices.length; v += 3) found.text.push(name);
    first += vertices.length / 3;
  }
  if (look.color) delete found.facecolor;
  return found;
}

function replay(parent, { times, conditions, scene }) {
  const controls = element("div", parent, undefined, { className: "controls" });
  const play = element("button", controls, "play", { id: "play" });
  const slider = element("input", controls, undefined, { type: "range", id: "frame", min: 0, max: times.length - 1, value: 0 });
  slider.setAttribute("aria-label", "time");
  const clock = element("output", controls);
  const choice = element("select", controls, undefined, { id: "condition" });
  conditions.forEach(({ name }, i) => element("option", choice, name, { value: i }));
  const words = element("p", parent);
  const grid = element("div", parent, undefined, { className: scene ? "replay" : "replay flat" });
  const view = scene && element("div", grid, undefined, { id: "replay-scene" });
  const series = element("div", grid, undefined, { id: "replay-series" });
  const moving = scene && scene.parts.filter(({ body }) => body !== null);
  let now = {}, busy = false; // now: what is shown, decoded

  const whose = () => Object.keys(now);
  const place = (who) => points(scene, moving, now[who].poses, slider.value);

  async function show() { // the chosen frame
    if (busy) return; // the next one comes
    busy = true;
    const at = times[slider.value];
    clock.textContent = `${at.toFixed(2)} s`;
    if (scene) {
      const all = whose().map(place);
      await Plotly.restyle(view, { x: all.map((p) => p.x), y: all.map((p) => p.y), z: all.map((p) => p.z) },
        whose().map((_, i) => i + 1));
    }
    await Plotly.relayout(series, { shapes: [cursor(at)] });
    busy = false;
    if (times[slider.value] !== at) await show();
  }

  async function begin() { // the chosen condition
    busy = true;
    const { acted } = conditions[choice.value];
    now = {};
    for (const [who, { said, ...numbers }] of Object.entries(acted)) {
      now[who] = Object.fromEntries(Object.entries(numbers).map(([name, one]) => [name, decoded(one)]));
    }
    words.textContent = Object.entries(acted).map(([who, { said }]) => `${who}: ${said}`).join("; ");
    if (scene) await Plotly.react(view, sceneTraces(), sceneLayout(scene), CONFIG);
    await Plotly.react(series, seriesTraces(times, now), seriesLayout("guider" in now), CONFIG);
    busy = false;
    await show();
  }

  function sceneTraces() {
    const still = scene.parts.filter(({ body }) => body === null);
    const shown = [mesh(still, points(scene, still), {})];
    for (const who of whose()) {
      const ghost = who === "guider" ? { color: GUIDER, opacity: 0.3 } : {};
      shown.push(mesh(moving, place(who), { name: who, showlegend: true, ...ghost }));
    }
    for (const who of whose().filter((one) => now[one].path)) {
      const [x, y, z] = now[who].path;
      shown.push({ type: "scatter3d", mode: "lines", x, y, z, name: `path of the ${who}`, hoverinfo: "skip",
        line: { color: who === "guider" ? GUIDER : LEARNER, width: 4 } });
    }
    const { target } = conditions[choice.value];
    if (target) {
      shown.push({ type: "scatter3d", mode: "markers", x: [target[0]], y: [target[1]], z: [target[2]], name: "target",
        marker: { color: "#000", size: 5, symbol: "diamond" }, hoverinfo: "name+x+y+z" });
    }
    return shown;
  }

  let started = null;
  function stop() {
    started = null;
    play.textContent = "play";
  }
  async function tick(now) {
    if (started === null) return;
    const at = (now - started) / 1000;
    const frame = times.findLastIndex((time) => time <= at);
    slider.value = Math.max(0, frame);
    await show();
    if (at >= times.at(-1)) stop();
    else requestAnimationFrame(tick);
  }
  play.onclick = () => {
    if (started !== null) return stop();
    if (Number(slider.value) === times.length - 1) slider.value = 0;
    started = performance.now() - 1000 * times[slider.value];
    play.textContent = "pause";
    requestAnimationFrame(tick);
  };
  slider.oninput = () => { stop(); show(); };
  choice.onchange = () => { stop(); slider.value = 0; begin(); };
  begin();
}

function sceneLayout({ low, high, eye, up }) {
  const sizes = high.map((end, n) => end - low[n]), longest = Math.max(...sizes);
  const [x, y, z] = sizes.map((size) => size / longest);
  const side = (n, name) => ({ range: [low[n], high[n]], showticklabels: sizes[n] > longest / 4,
    title: { text: sizes[n] > longest / 4 ? `${name} (m)` : "", font: { size: 12 } }, tickfont: { size: 11 }, gridcolor: "#e4e4e4", zeroline: false, showspikes: false, nticks: 5, backgroundcolor: "#fff" });
  return { ...BASE, margin: { l: 0, r: 0, t: 0, b: 0 }, uirevision: "kept", legend: { x: 0, y: 1, font: { size: 11 } },
    scene: { aspectmode: "manual", aspectratio: { x, y, z }, xaxis: side(0, "x"), yaxis: side(1, "y"), zaxis: side(2, "z"), dragmode: "orbit",
      camera: { eye, up, center: { x: 0, y: 0, z: 0 } } } };
}

function seriesTraces(times, acted) {
  const names = { x: "state x", u: "action u", cost: "cost" };
  return Object.entries(acted).flatMap(([who, one]) =>
    Object.keys(names).flatMap((part, row) => one[part].map((y, i) => ({
      type: "scatter", mode: "lines", x: times, y, xaxis: "x", yaxis: row ? `y${row + 1}` : "y",
      name: part === "cost" ? `cost, ${who}` : `${part}[${i}], ${who}`, showlegend: false,
      line: { width: 1.3, color: part === "cost" ? (who === "guider" ? GUIDER : LEARNER) : COLORS[i % COLORS.length],
        dash: who === "guider" ? "dot" : "solid", shape: part === "u" ? "hv" : "linear" },
      hovertemplate: "%{y:.4g}",
    }))));
}

function seriesLayout(both) {
  const row = (label, domain) => ({ ...GRID, domain, title: { ...GRID.title, text: label } });
  return { ...BASE, hovermode: "closest", margin: { ...BASE.margin, t: 24 },
    title: { text: both ? "solid: learner, dotted: guider" : "", x: 0, xref: "paper", font: { size: 11 }, y: 0.985, yanchor: "top" },
    xaxis: { ...GRID, title: { ...GRID.title, text: "time (s)" }, anchor: "y3" },
    yaxis: row("state", [0.68, 1]), yaxis2: row("action", [0.34, 0.62]), yaxis3: row("cost of a step", [0, 0.28]) };
}

function cursor(at) {
  return { type: "line", xref: "x", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { color: "#999", width: 1 } };
}

async function main() {
  const report = JSON.parse(await unpacked("report"));
  const facts = document.getElementById("facts");
  for (const [name, value] of report.facts) {
    const fact = element("span", facts, `${name} `);
    element("b", fact, value);
  }
  element("script", document.head, await unpacked("plotly"));
  const place = document.getElementById("main"), nav = document.getElementById("sections"), seen = whenSeen();
  for (const note of report.notes) element("p", place, note, { className: "note" });
  for (const part of report.sections) {
    section(place, part, report.axes, seen);
    element("a", nav, part.title, { href: `#${part.title.replaceAll(" ", "-")}` });
  }
  const over = element("select", element("label", nav, "curves over "), undefined, { id: "axis" });
  for (const [name, label] of Object.entries(report.axes)) element("option", over, label, { value: name });
  over.onchange = () => {
    axis = over.value;
    for (const [box, panel] of drawn) draw(box, panel, report.axes);
  };
  document.body.dataset.ready = "yes";
}

main();
