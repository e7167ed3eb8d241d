// Landscape: memories in the plane, their energy and basins, and a query that is retrieved.

const PATH_TOL = 1e-4, PATH_STEPS = 200;

/** All numbers of the figure. `grid` is the number of grid points along a side. */
export function compute({ memories, beta, masses, query, grid = 24 }) {
  const p = plane(memories, beta, masses === "smoothed");
  const found = p.attractors();
  const { path, path_energy } = retrieval(p, query);
  const points = found.points.slice(), energies = new Float64Array(grid * grid), labels = new Int16Array(grid * grid);
  p.grid(grid, points, energies, labels);
  return {
    memory_energy: memories.map(([x, y]) => p.energy(x, y)),
    memory_basin: found.of,
    fixed_points: found.points,
    fixed_point_energy: found.points.map(([x, y]) => p.energy(x, y)),
    fixed_point_curvature: found.points.map(([x, y]) => p.curvature(x, y)),
    path,
    path_energy,
    grid_energy: [...energies],
    grid_basin: [...labels],
  };
}

function retrieval(p, query) {
  const path = [query];
  for (let [x, y] = query; path.length <= PATH_STEPS; ) {
    p.step(x, y);
    const moved = Math.hypot(p.x - x, p.y - y);
    if (moved <= PATH_TOL) break;
    path.push([(x = p.x), (y = p.y)]);
  }
  return { path, path_energy: path.map(([x, y]) => p.energy(x, y)) };
}

function render({ model, el }) {
  const figure = mount(model, el, { kind: "landscape", label: "Landscape: energy and basins of memories in the plane", basis: "20em" });
  const { stage } = figure;
  stage.style.maxWidth = "30em";
  const picture = basinPicture(stage);
  const overlay = make("div", { class: "hk-overlay", "aria-hidden": "true" });
  stage.append(overlay);
  let handles = [], chosen = 0, ball = 1, dropped = null;

  const round = (v) => Number(clamp(v, -EDGE, EDGE).toFixed(3));
  const place = (k) => (k < 0 ? model.get("query") : model.get("memories")[k]);
  const put = (k, [x, y]) => {
    const at = [round(x), round(y)];
    figure.set(k < 0 ? { query: at } : { memories: model.get("memories").map((m, i) => (i === k ? at : m)) });
  };
  const where = (event) => {
    const box = stage.getBoundingClientRect();
    return [(2 * (event.clientX - box.left) / box.width - 1) * HALF, (1 - 2 * (event.clientY - box.top) / box.width) * HALF];
  };
  function drop() { figure.animate(0.9, (time) => { ball = time; figure.redraw(); }); }
  function add() {
    const memories = model.get("memories");
    if (memories.length < BASIN_COLORS.length) { chosen = memories.length; figure.set({ memories: [...memories, model.get("query")] }); }
  }
  function remove(k) {
    const memories = model.get("memories");
    if (memories.length < 2) return;
    const focused = handles.includes(document.activeElement);
    chosen = Math.max(0, k - 1);
    figure.set({ memories: memories.filter((_, i) => i !== k) });
    if (focused) handles[chosen + 1].focus(); // its own handle may be the one that goes
  }
  // Handle 0 is the query, handle k + 1 is memory k.
  function handle(index) {
    const k = index - 1;
    const made = make("button", { type: "button", class: "hk-handle" }, make("span", {}, k < 0 ? "?" : `${k + 1}`));
    made.addEventListener("focus", () => { if (k >= 0) chosen = k; });
    made.addEventListener("pointerdown", (event) => { figure.stop(); ball = 1; made.setPointerCapture(event.pointerId); });
    made.addEventListener("pointermove", (event) => { if (made.hasPointerCapture(event.pointerId)) put(k, where(event)); });
    made.addEventListener("pointerup", () => { if (k < 0) drop(); });
    made.addEventListener("keydown", (event) => {
      const [x, y] = place(k), far = event.shiftKey ? 0.2 : 0.05;
      const to = {
        ArrowLeft: [x - far, y], ArrowRight: [x + far, y], ArrowUp: [x, y + far], ArrowDown: [x, y - far],
        Home: [-EDGE, y], End: [EDGE, y], PageUp: [x, EDGE], PageDown: [x, -EDGE],
      }[event.key];
      if (to) put(k, to);
      else if (event.key === "Delete" && k >= 0) remove(k);
      else if (event.key === "Enter" && k < 0) drop();
      else return;
      event.preventDefault();
    });
    stage.append(made);
    return made;
  }
  picture.canvas.addEventListener("click", (event) => { put(-1, where(event)); drop(); });
  figure.slider({ name: "beta", label: "inverse temperature β", min: 1, max: 64, steps: 60, log: true });
  figure.choice({ name: "masses", label: "masses", options: { equal: "equal (Hopfield)", smoothed: "of smoothed data" } });
  figure.button("Drop the query", drop);
  const adder = figure.button("Add a memory", add);
  const remover = figure.button("Remove memory", () => remove(Math.min(chosen, model.get("memories").length - 1)));

  function draw({ memories, beta, masses, query }) {
    const p = plane(memories, beta, masses === "smoothed"), found = p.attractors();
    const { path, path_energy } = retrieval(p, query);
    const [x, y] = path.at(-1), energy = path_energy.at(-1);
    const end = nearest(found.points, x, y);
    const state = JSON.stringify([memories, beta, masses]);
    if (state !== dropped) picture.show(p, found);
    dropped = state;
    const dots = path.map(([a, b]) => `${across(a)},${down(b)}`);
    const at = ball * (path.length - 1), from = path[Math.floor(at)], to = path[Math.ceil(at)], t = at % 1;
    overlay.innerHTML = `<svg viewBox="0 0 100 100"><polyline points="${dots.join(" ")}" fill="none" stroke="var(--ink)" stroke-width=".7"/>` +
      dots.map((dot) => `<circle cx="${dot.split(",")[0]}" cy="${dot.split(",")[1]}" r=".8" fill="var(--ink)"/>`).join("") +
      found.points.map(([a, b]) => `<path d="M${across(a) - 2} ${down(b)}h4m-2 -2v4" stroke="var(--ink)" stroke-width=".8"/>`).join("") +
      `<circle cx="${across(from[0] + t * (to[0] - from[0]))}" cy="${down(from[1] + t * (to[1] - from[1]))}" r="1.8" fill="var(--paper)" stroke="var(--ink)" stroke-width=".8"/></svg>`;
    while (handles.length > memories.length + 1) handles.pop().remove();
    while (handles.length < memories.length + 1) handles.push(handle(handles.length));
    handles.forEach((made, index) => {
      const [a, b] = index ? memories[index - 1] : query;
      made.style.cssText = `left:${across(a)}%;top:${down(b)}%`;
      const name = index ? `memory ${index}, in basin ${found.of[index - 1] + 1}` : `query, ends in basin ${end + 1}`;
      made.setAttribute("aria-label", `${name}, at ${fixed(a, 2)}, ${fixed(b, 2)}; arrow keys move it`);
      if (index) made.firstChild.style.background = COLORS[BASIN_COLORS[index - 1]];
    });
    const basins = found.points.length, n = memories.length;
    adder.disabled = n >= BASIN_COLORS.length;
    remover.disabled = n < 2;
    const shared = found.points.map((_, k) => memories.flatMap((_, i) => (found.of[i] === k ? [i + 1] : []))).filter((group) => group.length > 1);
    return `At β = ${figures(beta, 3)}, ${n} ${n > 1 ? "memories" : "memory"} make ${basins} ${basins > 1 ? "basins" : "basin"}` +
      (shared.length ? `; ${shared.map((group) => group.join(", ")).join(" and ")} share one. ` : ", one each. ") +
      `The query at (${fixed(query[0], 2)}, ${fixed(query[1], 2)}) ends after ${path.length - 1} ${path.length === 2 ? "step" : "steps"} at (${fixed(x, 2)}, ${fixed(y, 2)}), ` +
      `its energy down from ${fixed(path_energy[0], 3)} to ${fixed(energy, 3)}; ` +
      `the smallest curvature there is ${fixed(p.curvature(x, y), 3)}.`;
  }
  const mend = (values) => ({ ...values, memories: mendPoints(values.memories), query: mendPoints([values.query])[0] });
  const close = figure.start(draw, mend);
  return () => { picture.close(); close(); };
}

const nearest = (points, x, y) => points.reduce((best, [a, b], k) => {
  const far = Math.hypot(a - x, b - y);
  return far < best.far ? { k, far } : best;
}, { k: 0, far: Infinity }).k;

export default { render };
