// The page of `z1g view`. What it uses is in z1g/render/splat_*.js, which the server puts before this.
(() => {
  const at = (id) => document.getElementById(id);
  const { values, save } = remembered("z1g view", {
    color: "rgb", size: 1, apart: true, condition: true, azimuth: 0.5, elevation: 0.3, zoom: 1,
  });
  // All canvases turn together, so that they are seen from the same side.
  const view = values, models = [];
  let about, together, asked = 0;
  const apart = () => view.apart || models.length === 1;
  const say = (text) => { at("message").textContent = text; };
  const shown = () => (apart() ? models.filter((model) => model.tick.checked).map((model) => model.viewer) : [together.viewer]);
  const turnAll = () => { save(); shown().forEach((viewer) => viewer.soon()); };

  const call = async (address) => {
    let answer;
    try { answer = await fetch(address); } catch { throw new Error("The server does not answer."); }
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || answer.statusText);
    return answer;
  };
  const figure = () => {
    const element = at("model").content.firstElementChild.cloneNode(true);
    at("models").append(element);
    const options = { frame: [1, 0, 0, 0, 1, 0, 0, 0, 1], radius: about.radius, fov: about.fov, view, onTurn: turnAll };
    return { element, viewer: splatCanvas(element.querySelector("canvas"), options) };
  };
  const load = ({ viewer }, bytes) => { if (!viewer.load(bytes)) say("This browser does not support WebGL 2."); };
  const arrange = () => {
    for (const model of models) {
      model.element.hidden = !apart() || !model.tick.checked;
      model.element.querySelector("img").hidden = !view.condition || !model.condition;
      if (!model.element.hidden && model.bytes) load(model, model.bytes);
    }
    together.element.hidden = apart();
    if (apart() || !models.every((model) => model.bytes)) return;
    const parts = models.filter((model) => model.tick.checked).map((model) => model.bytes);
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((offset, part) => { all.set(part, offset); return offset + part.length; }, 0);
    load(together, all);
  };
  const recolor = async () => {
    const mine = ++asked;
    const query = new URLSearchParams({ color: view.color });
    for (const [i, model] of models.entries()) {
      const bytes = new Uint8Array(await (await call(`/splats/${i}?${query}`)).arrayBuffer());
      if (mine !== asked) return;
      model.bytes = bytes;
    }
    arrange();
    document.body.dataset.color = view.color;
  };
  const addModel = (entry, i) => {
    const model = { ...figure(), bytes: null, condition: entry.condition };
    const number = (n) => n.toLocaleString("en");
    const part = entry.shown < entry.visible;
    const count = part ? `${number(entry.shown)} of ${number(entry.visible)}` : number(entry.shown);
    model.element.querySelector("figcaption").textContent =
      `${entry.name}: ${count} visible splats${part ? ", enlarged to cover the same area" : ""}`;
    if (entry.condition) model.element.querySelector("img").src = `/conditions/${i}`;
    const label = document.createElement("label");
    model.tick = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    model.tick.addEventListener("change", arrange);
    label.append(model.tick, entry.name);
    at("files").append(label);
    models.push(model);
  };
  const told = (work) => work().catch((error) => say(error.message));

  told(async () => {
    about = await (await call("/about")).json();
    about.models.forEach(addModel);
    together = figure();
    together.element.querySelector("figcaption").textContent = "on top of each other";
    const several = about.models.length > 1;
    at("layout").hidden = at("files").hidden = !several;
    at("with").hidden = !about.models.some((model) => model.condition);
    if (!about.colorings.includes(view.color)) [view.color] = about.colorings;
    at("color").replaceChildren(...about.colorings.map((name) => new Option(name, name)));
    Object.assign(at("color"), { value: view.color });
    Object.assign(at("size"), { value: view.size });
    Object.assign(at("apart"), { value: view.apart ? "1" : "" });
    Object.assign(at("condition"), { checked: view.condition });
    at("color").addEventListener("change", () => { view.color = at("color").value; save(); told(recolor); });
    at("size").addEventListener("input", () => { view.size = Number(at("size").value); turnAll(); });
    at("apart").addEventListener("change", () => { view.apart = Boolean(at("apart").value); save(); arrange(); });
    at("condition").addEventListener("change", () => { view.condition = at("condition").checked; save(); arrange(); });
    const name = () => (several ? "splats" : about.models[0].name.replace(/\.[^.]*$/, ""));
    splatTools(at("tools"), { view, canvases: shown, turnAll, name });
    document.title = `${about.models.map((model) => model.name).join(", ")} · z1g`;
    await recolor();
  });
})();
