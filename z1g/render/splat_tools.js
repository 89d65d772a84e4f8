// Controls beside canvases of splats: settings that a browser remembers, screenshots, and camera paths for `z1g film`.

// The object `values` with what this browser remembers of it; `save` is called after a change. What has another type, or is
// no finite number, is not taken. Browsers may refuse to remember.
const remembered = (key, values) => {
  const fits = (a, b) => typeof a === typeof b && !Array.isArray(a) && (typeof a !== "number" || Number.isFinite(a));
  try {
    const known = JSON.parse(localStorage.getItem(key)) ?? {};
    for (const name of Object.keys(values)) if (fits(known[name], values[name])) values[name] = known[name];
  } catch { /* nothing is remembered */ }
  return { values, save: () => { try { localStorage.setItem(key, JSON.stringify(values)); } catch { /* it is not remembered */ } } };
};

// Cubic Hermite spline through keyframes [azimuth, elevation, log zoom] with tangents by Catmull and Rom (1974), zero at the
// ends, at `at` in 0..1. z1g/inference/film.py computes the same.
const alongPath = (keyframes, at) => {
  const last = keyframes.length - 1, i = Math.min(Math.floor(at * last), last - 1), t = at * last - i;
  const slope = (k, c) => (k <= 0 || k >= last ? 0 : (keyframes[k + 1][c] - keyframes[k - 1][c]) / 2);
  return [0, 1, 2].map((c) => {
    const [a, b, m, n] = [keyframes[i][c], keyframes[i + 1][c], slope(i, c), slope(i + 1, c)];
    return a + t * (m + t * (3 * (b - a) - 2 * m - n + t * (2 * (a - b) + m + n)));
  });
};

// Adds the controls to the element `bar`. canvases(): splat canvases that are shown, from left to right. view: theirs.
// turnAll(): draws them again. name(): of files, without an ending.
const splatTools = (bar, { view, canvases, turnAll, name }) => {
  const DEGREES = 180 / Math.PI, LIMIT = 1.5, LONGEST_S = 600, MOST = 100, LARGEST = 2 ** 20;
  let keyframes = [], playing = null;

  const add = (kind, words, properties = {}) => {
    const element = Object.assign(document.createElement(kind), { textContent: words, ...properties });
    bar.append(element);
    return element;
  };
  const button = (words, title, action) => {
    const made = add("button", words, { type: "button", title });
    made.addEventListener("click", action);
    return made;
  };
  const save = (content, ending) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(content), download: `${name()}${ending}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  const screenshot = () => {
    const shown = canvases();
    if (!shown.length) return;
    shown.forEach((canvas) => canvas.draw());
    const sheet = document.createElement("canvas");
    sheet.width = shown.reduce((sum, { canvas }) => sum + canvas.width, 0);
    sheet.height = Math.max(...shown.map(({ canvas }) => canvas.height));
    const paper = sheet.getContext("2d");
    paper.fillStyle = "#fff";
    paper.fillRect(0, 0, sheet.width, sheet.height);
    let x = 0;
    for (const { canvas } of shown) { paper.drawImage(canvas, x, 0); x += canvas.width; }
    sheet.toBlob((content) => save(content, ".png"));
  };

  const look = ([azimuth, elevation, zoom]) => {
    view.azimuth = azimuth;
    view.elevation = Math.max(-LIMIT, Math.min(LIMIT, elevation));
    view.zoom = Math.exp(zoom);
    turnAll();
  };
  const stop = () => { cancelAnimationFrame(playing); playing = null; play.textContent = "Play"; };
  const duration = () => Math.max(0.1, Math.min(LONGEST_S, Number(seconds.value) || 4));
  const start = () => {
    if (playing !== null) return stop();
    if (keyframes.length < 2) return;
    play.textContent = "Stop";
    const began = performance.now();
    const step = () => {
      const at = (performance.now() - began) / 1000 / duration();
      look(alongPath(keyframes, Math.min(1, at)));
      if (at < 1) playing = requestAnimationFrame(step); else stop();
    };
    playing = requestAnimationFrame(step);
  };
  const list = () => {
    path.replaceChildren(...keyframes.map((keyframe, i) => {
      const item = document.createElement("span");
      const go = Object.assign(document.createElement("button"), { type: "button", textContent: String(i + 1), title: `go to keyframe ${i + 1}` });
      const drop = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: `remove keyframe ${i + 1}` });
      go.addEventListener("click", () => { stop(); look(keyframe); });
      drop.addEventListener("click", () => { stop(); keyframes.splice(i, 1); list(); });
      item.append(go, drop);
      return item;
    }));
    play.disabled = keep.disabled = keyframes.length < 2;
    record.disabled = keyframes.length >= MOST;
    bar.dataset.keyframes = String(keyframes.length);
  };
  const write = () => {
    const round = (x) => Math.round(x * 1e4) / 1e4;
    const content = {
      kind: "camera path", version: 1, seconds: duration(),
      keyframes: keyframes.map(([a, e, z]) => ({ azimuth_deg: round(a * DEGREES), elevation_deg: round(e * DEGREES), zoom: round(Math.exp(z)) })),
    };
    save(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }), ".path.json");
  };
  const read = async (file) => {
    try {
      if (file.size > LARGEST) throw new Error("it is too large");
      const found = JSON.parse(await file.text());
      if (found.kind !== "camera path" || found.version !== 1) throw new Error("it has another kind or version");
      const points = found.keyframes.map((k) => [k.azimuth_deg / DEGREES, k.elevation_deg / DEGREES, Math.log(k.zoom)]);
      if (points.length < 2 || points.length > MOST || !points.flat().every(Number.isFinite)) throw new Error(`it needs 2 to ${MOST} keyframes`);
      stop();
      keyframes = points;
      seconds.value = found.seconds;
      message.textContent = "";
      list();
      look(keyframes[0]);
    } catch (error) { message.textContent = `${file.name} is no camera path: ${error.message}`; }
  };

  button("Reset view", "turn back to where every view begins", () => { stop(); look([0.5, 0.3, 0]); });
  button("Screenshot", "save what is shown as .png", screenshot);
  const record = button("Add keyframe", "remember this view as the next one of a camera path", () => {
    stop();
    keyframes.push([view.azimuth, view.elevation, Math.log(view.zoom)]);
    list();
  });
  const path = add("span", "", { className: "path" });
  const play = button("Play", "move along the camera path", start);
  const label = add("label", "Seconds ");
  const seconds = Object.assign(document.createElement("input"), { type: "number", min: 0.1, max: LONGEST_S, step: 0.1, value: 4 });
  label.append(seconds);
  const keep = button("Save path", "save the camera path; z1g film makes a film of it", write);
  const chooser = Object.assign(document.createElement("input"), { type: "file", accept: ".json", hidden: true });
  chooser.addEventListener("change", () => { if (chooser.files[0]) read(chooser.files[0]); chooser.value = ""; });
  button("Open path", "read a camera path", () => chooser.click());
  const message = add("span", "", { className: "message" });
  message.setAttribute("role", "status");
  bar.append(chooser);
  list();
  return { stop };
};
