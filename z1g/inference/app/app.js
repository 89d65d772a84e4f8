// The page of `z1g app`. What it uses is in z1g/render/splat_*.js, which the server puts before this.
(() => {
  const at = (id) => document.getElementById(id);
  const POLL_MS = 300, CANVASES = 12;
  let about = { models: [] }, photograph = null;
  const cards = [];
  // All results turn together, so that they are seen from the same side.
  const view = { azimuth: 0.5, elevation: 0.3, zoom: 1, size: 1 };
  const turnAll = () => cards.forEach((card) => card.viewer && card.viewer.soon());
  const say = (text) => { at("message").textContent = text; };

  const call = async (address, body, headers = {}) => {
    const options = body === undefined ? {} : { method: "POST", body, headers: { "X-Z1G": "1", ...headers } };
    let answer;
    try { answer = await fetch(address, options); } catch { throw new Error("The server does not answer."); }
    if (answer.ok) return answer;
    throw new Error((await answer.json().catch(() => ({}))).error || answer.statusText);
  };
  const told = (work) => work().catch((error) => say(error.message));

  // The photograph
  const take = (file) => told(async () => {
    if (!file) return;
    say("");
    if (file.size > about.bytes) throw new Error(`${file.name} is larger than ${about.bytes / 2 ** 20} MiB; make it smaller.`);
    const answer = await call("/photographs", file, { "X-Name": encodeURIComponent(file.name || "pasted.png") });
    photograph = await answer.json();
    const words = { alpha: "its own transparency", rembg: "removed by rembg", keep: "kept (for plain gray)" };
    at("cut").replaceChildren(...photograph.cuts.map((cut) => new Option(words[cut], cut)));
    at("seeds").value = photograph.seed;
    for (const [id, value] of [["zoom", 1], ["x", 0], ["y", 0]]) at(id).value = value;
    at("options").disabled = false;
    await preview();
  });
  // One question at a time, the latest last: a drag asks faster than a server answers.
  let asking = false, stale = false;
  const preview = async () => {
    stale = true;
    if (asking) return;
    asking = true;
    try {
      while (stale && photograph) {
        stale = false;
        const query = new URLSearchParams({ cut: at("cut").value, x: at("x").value, y: at("y").value, zoom: at("zoom").value, model: at("model").value });
        const image = await (await call(`/photographs/${photograph.id}/preview?${query}`)).blob();
        URL.revokeObjectURL(at("preview").src);
        at("preview").src = URL.createObjectURL(image);
        at("preview").hidden = at("hint").hidden = false;
        document.querySelector("#drop span").hidden = true;
      }
    } finally { asking = false; }
  };
  at("file").addEventListener("change", () => take(at("file").files[0]));
  at("drop").addEventListener("keydown", (event) => { if (event.key === "Enter") at("file").click(); });
  addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
  addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
  addEventListener("dragleave", () => at("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  for (const id of ["cut", "zoom", "x", "y"]) at(id).addEventListener("input", () => told(preview));

  // The crop by the pointer; the sliders do the same by keys. The object moves with the pointer, so the crop moves against it.
  let dragged = 0;
  const image = at("preview");
  const move = (id, by) => { at(id).value = Number(at(id).value) + by; };
  image.addEventListener("pointerdown", (event) => { dragged = 0; image.setPointerCapture(event.pointerId); });
  image.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    const scale = 1 / image.clientWidth / Number(at("zoom").value);
    dragged += Math.abs(event.movementX) + Math.abs(event.movementY);
    move("x", -event.movementX * scale);
    move("y", -event.movementY * scale);
    told(preview);
  });
  // A click chooses a file; the end of a drag does not.
  image.addEventListener("click", (event) => { if (dragged > 3) event.preventDefault(); });
  image.addEventListener("wheel", (event) => {
    event.preventDefault();
    at("zoom").value = Number(at("zoom").value) * Math.exp(-event.deltaY / 600);
    told(preview);
  }, { passive: false });

  // Samples
  const defaults = () => {
    const model = about.models[Number(at("model").value)];
    at("steps").value = model.steps;
    at("guidance").value = model.guidance;
  };
  at("model").addEventListener("change", () => { defaults(); told(preview); });
  const seeds = () => at("seeds").value.split(/[\s,;]+/).filter(Boolean).map(Number);
  at("another").addEventListener("click", () => {
    const known = seeds();
    at("seeds").value = [...known, (known.length ? Math.max(...known) + 1 : 0) % 2 ** 32].join(", ");
  });
  at("make").addEventListener("click", () => told(async () => {
    say("");
    const wanted = {
      photograph: photograph.id, model: Number(at("model").value), seeds: seeds(), steps: Number(at("steps").value),
      guidance: Number(at("guidance").value), cut: at("cut").value, shift: [Number(at("x").value), Number(at("y").value)],
      zoom: Number(at("zoom").value), mesh: at("mesh").checked, refine: at("refine").checked,
    };
    const { samples } = await (await call("/samples", JSON.stringify(wanted))).json();
    // The newest cards are in front, in the order of their seeds.
    samples.reverse().forEach((id) => addCard(id, about.models[wanted.model]));
  }));

  const addCard = (id, model) => {
    const element = at("card").content.firstElementChild.cloneNode(true);
    const part = (name) => element.querySelector(name);
    const card = { id, element, viewer: null, ended: false };
    cards.unshift(card);
    at("results").prepend(element);
    // Browsers allow few WebGL contexts.
    while (cards.length > CANVASES) remove(cards.at(-1));
    part(".close").addEventListener("click", () => remove(card));
    const follow = async () => {
      const state = await (await call(`/samples/${id}`)).json();
      part(".name").textContent = state.name;
      const steps = !state.steps ? "loading the model" : state.step < state.steps ? `step ${state.step} of ${state.steps}` : "rendering";
      const words = { waiting: `waiting, ${state.ahead} before`, running: steps, done: state.error, failed: state.error, stopped: "stopped" };
      part(".state").textContent = words[state.state];
      part("progress").value = state.steps ? state.step / state.steps : 0;
      if (state.state === "waiting" || state.state === "running") {
        if (!card.ended) setTimeout(() => follow().catch(fail), POLL_MS);
        return;
      }
      part("progress").hidden = true;
      if (state.state === "done") await finish(state);
    };
    const fail = (error) => { part(".state").textContent = error.message; part("progress").hidden = true; };
    const finish = async (state) => {
      const bytes = new Uint8Array(await (await call(`/samples/${id}/packed`)).arrayBuffer());
      const canvas = part("canvas");
      canvas.hidden = false;
      card.viewer = splatCanvas(canvas, { frame: [1, 0, 0, 0, 1, 0, 0, 0, 1], radius: model.radius, fov: model.fov, view, onTurn: turnAll });
      if (!card.viewer.load(bytes)) part(".state").textContent = "This browser does not support WebGL 2.";
      at("tools").hidden = false;
      if (state.files.includes(".condition.png")) {
        part(".condition").src = `/samples/${id}/file.condition.png`;
        part(".condition").hidden = false;
      }
      film(state);
      const links = [".ply", ".spz", ".splat", ".glb", ".json"].filter((x) => state.files.includes(x) || x === ".spz" || x === ".splat");
      part("nav").replaceChildren(...links.map((ending) => {
        const link = document.createElement("a");
        link.href = `/samples/${id}/file${ending}`;
        link.download = `${state.name}${ending}`;
        link.textContent = ending;
        return link;
      }));
      part("nav").hidden = false;
    };
    // Fetched when it is opened: a film is larger than what else a card shows.
    const film = (state) => {
      const ending = state.files.find((x) => x.startsWith(".turntable"));
      if (!ending) return;
      part(".film").hidden = false;
      part(".film").addEventListener("toggle", () => {
        if (part(".film").childElementCount > 1) return;
        const moving = document.createElement(ending.endsWith(".mp4") ? "video" : "img");
        Object.assign(moving, { src: `/samples/${id}/file${ending}`, autoplay: true, loop: true, muted: true, controls: true });
        part(".film").append(moving);
      });
    };
    follow().catch(fail);
  };
  const remove = (card) => {
    if (!card.viewer) call(`/samples/${card.id}/stop`, "").catch(() => {});
    else card.viewer.close();
    card.ended = true;
    card.element.remove();
    cards.splice(cards.indexOf(card), 1);
    at("tools").hidden = !cards.some((other) => other.viewer);
  };
  const shown = () => cards.filter((card) => card.viewer);
  splatTools(at("tools"), {
    view, canvases: () => shown().map((card) => card.viewer), turnAll,
    name: () => (shown().length === 1 ? shown()[0].element.querySelector(".name").textContent : "splats"),
  });

  told(async () => {
    about = await (await call("/about")).json();
    at("model").replaceChildren(...about.models.map((model, i) => new Option(model.name.split("/").filter(Boolean).at(-1), i)));
    at("mesh-label").hidden = !about.mesh;
    defaults();
  });
})();
