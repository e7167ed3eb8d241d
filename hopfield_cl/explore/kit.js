// What all interactive figures share. base.py puts it in front of a figure's own module, and says
// how that uses it.

/** A model without a kernel: the part of anywidget's model that the figures use. */
function staticModel(values) {
  const state = structuredClone(values), heard = {};
  return {
    static: true,
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      for (const callback of heard[`change:${name}`] ?? []) callback();
    },
    on(event, callback) { (heard[event] ??= new Set()).add(callback); },
    off(event, callback) { heard[event]?.delete(callback); },
    save_changes() {},
  };
}

// What takes the keyboard. A notebook matches its shortcuts on what has the focus before it looks for
// this mark further up: without it on each of these, "d d" on a slider deletes the cell.
const TAKES_KEYS = ["button", "input", "select", "summary"];

/** A new element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (TAKES_KEYS.includes(tag)) element.setAttribute("data-lm-suppress-shortcuts", true);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A number with so many decimals, or so many significant digits, and a true minus. */
const fixed = (value, decimals) => value.toFixed(decimals).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
const figures = (value, digits) => String(Number(value.toPrecision(digits))).replace("-", "−");

/** Traits of each figure in the page's fragment: #kind={…}&kind-2={…}. */
function readFragment() {
  const parts = location.hash.slice(1).split("&").map((part) => part.split("="));
  return new Map(parts.filter((part) => part.length === 2 && part[0]));
}

/** Whether a value from a link is of the kind that a trait has. */
function fits(value, like) {
  if (Array.isArray(like)) return Array.isArray(value) && value.length > 0 && value.every((item) => fits(item, like[0]));
  return typeof value === typeof like && (typeof value !== "number" || Number.isFinite(value));
}

function mount(model, el, { kind, label, basis = "100%", given = [], answers = [] }) {
  const live = !model.static;
  const initial = model.get("start"), names = Object.keys(initial);
  const twins = [...document.querySelectorAll(`[data-hcl="${kind}"]`)];
  const place = twins.indexOf(el.closest("[data-hcl]"));
  const key = place > 0 ? `${kind}-${place + 1}` : kind;
  const stage = make("div", { class: "hk-stage", style: `flex-basis:${basis}` });
  const controls = make("div", { class: "hk-controls" });
  const sentence = make("p", { "aria-hidden": "true" });
  const spoken = make("div", { class: "hk-spoken", "aria-live": "polite" });
  const tools = make("div", { class: "hk-tools" });
  const status = make("span", { role: "status" });
  const main = make("div", { class: "hk-main" }, stage, controls);
  const root = make("div", { class: "hk", role: "group", "aria-label": label, "aria-busy": true }, main, sentence, spoken);
  if (live) root.dataset.hclLive = model.get("mark");
  if (live && model.get("caption")) root.append(make("figcaption", {}, model.get("caption")));
  el.replaceChildren(root);

  const values = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const refreshers = [], cleaners = {}, closers = [];
  const watch = new ResizeObserver(schedule);
  let pending = 0, motion = 0, speech = 0, draw = null;

  function redraw() {
    pending = 0;
    if (!draw) return;
    if (!stage.clientWidth) {
      // Hidden, maybe for a part of this frame: an observer that begins anew tells of any size but none.
      watch.unobserve(stage);
      return watch.observe(stage);
    }
    for (const refresh of refreshers) refresh();
    sentence.textContent = draw(values(), stage.clientWidth);
    root.setAttribute("aria-busy", pending > 0 || motion > 0);
    // A screen reader is told once the figure rests, not sixty times a second.
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = sentence.textContent; }, 300);
  }
  function schedule() {
    root.setAttribute("aria-busy", true);
    pending ||= requestAnimationFrame(redraw);
  }
  function set(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  }
  function stop() {
    if (motion) schedule(); // at rest it draws once more
    cancelAnimationFrame(motion);
    motion = 0;
  }
  function animate(seconds, step) {
    stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return step(1);
    const began = performance.now();
    const tick = (now) => {
      const time = clamp((now - began) / 1000 / seconds, 0, 1);
      motion = time < 1 ? requestAnimationFrame(tick) : 0;
      step(time);
    };
    motion = requestAnimationFrame(tick);
  }

  function slider({ name, label: title, stops, min, max, steps = stops ? stops.length - 1 : 100, log, text = (value) => figures(value, 3) }) {
    const words = stops?.some((stop) => typeof stop === "string");
    const nearest = (value) => words ? Math.max(0, stops.indexOf(value))
      : stops.reduce((best, stop, k) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? k : best), 0);
    const at = (k) => stops ? stops[k] : Number((log ? min * (max / min) ** (k / steps) : min + ((max - min) * k) / steps).toPrecision(4));
    const position = (value) => stops ? nearest(value) : Math.round(steps * (log ? Math.log(value / min) / Math.log(max / min) : (value - min) / (max - min)));
    cleaners[name] = (value) => stops ? stops[nearest(value)] : clamp(value, min, max);
    if (!steps) return; // one position: nothing to move
    const input = make("input", { type: "range", min: 0, max: steps, step: 1, "data-trait": name });
    const shown = make("output");
    input.addEventListener("input", () => { stop(); set({ [name]: at(Number(input.value)) }); });
    refreshers.push(() => {
      const value = model.get(name);
      input.value = position(value);
      shown.textContent = text(value);
      input.setAttribute("aria-valuetext", shown.textContent);
    });
    input.setAttribute("aria-label", title);
    controls.append(make("label", {}, title, shown, input));
  }
  function choice({ name, label: title, options }) {
    cleaners[name] = (value) => (value in options ? value : initial[name]);
    if (Object.keys(options).length < 2) return;
    const select = make("select", { "data-trait": name });
    for (const [value, says] of Object.entries(options)) select.append(make("option", { value }, says));
    select.addEventListener("change", () => { stop(); set({ [name]: select.value }); });
    refreshers.push(() => { select.value = model.get(name); });
    controls.append(make("label", {}, title, select));
  }
  function button(text, action) {
    const made = make("button", { type: "button" }, text);
    made.addEventListener("click", action);
    tools.append(made);
    return made;
  }

  function listen(target, event, callback) {
    target.addEventListener(event, callback);
    closers.push(() => target.removeEventListener(event, callback));
  }
  function follow(mend) {
    let link;
    try { link = JSON.parse(decodeURIComponent(readFragment().get(key))); } catch { return; }
    if (link === null || typeof link !== "object") return;
    const wanted = names.filter((name) => Object.hasOwn(link, name) && fits(link[name], initial[name]));
    const given = Object.fromEntries(wanted.map((name) => [name, cleaners[name]?.(link[name]) ?? link[name]]));
    set(mend({ ...initial, ...given }));
    root.scrollIntoView();
  }
  async function copy() {
    const changed = names.filter((name) => JSON.stringify(model.get(name)) !== JSON.stringify(initial[name]));
    let text;
    if (live) {
      const traits = changed.map((name) => `${name}=${JSON.stringify(model.get(name))}`);
      text = `${kind[0].toUpperCase()}${kind.slice(1)}(${[...given, ...traits].join(", ")})`;
    } else {
      const part = Object.fromEntries(changed.map((name) => [name, model.get(name)]));
      const parts = readFragment().set(key, encodeURIComponent(JSON.stringify(part)));
      history.replaceState(history.state, "", "#" + [...parts].map((pair) => pair.join("=")).join("&"));
      text = location.href;
    }
    const done = live ? "Copied." : "Link copied.";
    try { await navigator.clipboard.writeText(text); status.textContent = done; }
    catch { status.textContent = live ? text : "The link is in the address bar."; }
  }

  function start(drawing, mend = (changes) => changes) {
    draw = drawing;
    button("Reset", () => { stop(); set(structuredClone(initial)); status.textContent = ""; });
    // A link to a notebook's own application would not bring the figure back.
    if (live ? given : !el.closest(".jp-NotebookPanel")) button(live ? "Copy as Python" : "Copy link to this state", copy);
    tools.append(status);
    controls.append(tools);
    for (const name of [...names, ...answers]) {
      model.on(`change:${name}`, schedule);
      closers.push(() => model.off(`change:${name}`, schedule));
    }
    if (live) {
      // ipywidgets' own event: the kernel was restarted, and no one hears this view any more. Without
      // its mark the figure's copy, which needs no kernel, shows in its place.
      const fade = () => { delete root.dataset.hclLive; };
      model.on("comm_live_update", fade);
      closers.push(() => model.off("comm_live_update", fade));
    }
    if (!live) {
      listen(window, "hashchange", () => follow(mend));
      follow(mend);
    }
    watch.observe(stage);
    listen(window, "beforeprint", redraw);
    redraw();
    return () => {
      stop();
      cancelAnimationFrame(pending);
      clearTimeout(speech);
      watch.disconnect();
      for (const close of closers) close();
    };
  }
  return { stage, set, redraw: schedule, animate, stop, slider, choice, button, start };
}
