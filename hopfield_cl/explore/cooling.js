// Cooling: data under noise σ, its posterior mean, basins that are born as σ falls, a sample path.

const HOT = 1.5, COLD = 0.1, FIELD = 13, LEVELS = 48, PATH = 64;
/** Grid points of the field, row by row from the top. */
const fieldPoint = (k) => [HALF * ((2 * (k % FIELD) + 1) / FIELD - 1), HALF * (1 - (2 * Math.floor(k / FIELD) + 1) / FIELD)];
const level = (k, count) => HOT * (COLD / HOT) ** (k / count);

/** All numbers of the figure. */
export function compute({ memories, sigma, sample }) {
  const p = plane(memories, sigma ** -2, true), found = p.attractors();
  const field = [];
  for (let k = 0; k < FIELD * FIELD; k++) {
    p.step(...fieldPoint(k));
    field.push([p.x, p.y]);
  }
  return {
    modes: found.points,
    memory_mode: found.of,
    mode_energy: found.points.map(([x, y]) => p.energy(x, y)),
    mode_curvature: found.points.map(([x, y]) => p.curvature(x, y)),
    field,
    births: births(memories),
    path: samplePath(memories, sigma, sample),
  };
}

/** Modes reached from the memories at each of LEVELS + 1 noise levels, from hot to cold. */
function births(memories) {
  return Array.from({ length: LEVELS + 1 }, (_, k) => {
    const { points, of } = plane(memories, level(k, LEVELS) ** -2, true).attractors();
    return { sigma: level(k, LEVELS), modes: points, of };
  });
}

/** The probability flow dx/dσ = (x − D_σ(x))/σ from a normal sample at HOT down to σ. */
function samplePath(memories, sigma, sample) {
  const count = memories.length, [u, v] = normals(sample, 2);
  let x = HOT * u, y = HOT * v;
  for (const m of memories) { x += m[0] / count; y += m[1] / count; }
  const path = [[HOT, x, y]];
  for (let k = 0, now = HOT; now > sigma; k++) {
    const next = Math.max(sigma, level(k + 1, PATH)), keep = next / now; // exact if D stays
    const p = plane(memories, now ** -2, true);
    p.step(x, y);
    x = p.x + keep * (x - p.x);
    y = p.y + keep * (y - p.y);
    path.push([(now = next), x, y]);
  }
  return path;
}

const tag = (x, y, name) => `<text x="${x}" y="${y}" style="font-size:4.2px;font-weight:600">${name}</text>`;

function render({ model, el }) {
  const figure = mount(model, el, { kind: "cooling", label: "Cooling: basins of data under noise" });
  const { stage } = figure;
  stage.style.cssText += ";display:flex;flex-wrap:wrap;gap:.5em 1.5em";
  const left = make("div", { style: "position:relative;flex:1 1 17em;max-width:26em;overflow:hidden" });
  const right = make("div", { style: "flex:1 1 17em;min-width:0" });
  stage.append(left, right);
  const picture = basinPicture(left);
  const overlay = make("div", { class: "hk-overlay", "aria-hidden": "true" });
  left.append(overlay);
  let tree = null, told = "", shown = "";

  figure.slider({ name: "sigma", label: "noise level σ", min: COLD, max: HOT, steps: 96, log: true, text: (s) => `${figures(s, 3)} (β = ${figures(s ** -2, 3)})` });
  figure.slider({ name: "sample", label: "sample", min: 1, max: 20, steps: 19, text: String });
  figure.button("Cool", () => {
    const from = model.get("sigma") > COLD * 1.01 ? model.get("sigma") : HOT;
    figure.animate(5, (time) => figure.set({ sigma: Number((from * (COLD / from) ** time).toPrecision(4)) }));
  });

  function draw(values) {
    const { memories, sigma, sample } = values, beta = sigma ** -2;
    if (told !== JSON.stringify(memories)) { tree = births(memories); told = JSON.stringify(memories); }
    const p = plane(memories, beta, true), found = p.attractors();
    if (shown !== told + sigma) picture.show(p, found);
    shown = told + sigma;
    let arrows = "";
    for (let k = 0; k < FIELD * FIELD; k++) {
      const [x, y] = fieldPoint(k);
      p.step(x, y);
      const u = 5 * (p.x - x), v = 5 * (y - p.y), w = 0.3; // in the picture's units of 1/100
      arrows += `M${across(x)} ${down(y)}l${u} ${v}l${-w * (u + v)} ${w * (u - v)}M${across(x) + u} ${down(y) + v}l${w * (v - u)} ${-w * (u + v)}`;
    }
    const path = samplePath(memories, sigma, sample), [, x, y] = path.at(-1);
    p.step(x, y);
    const mean = [p.x, p.y];
    overlay.innerHTML = `<svg viewBox="0 0 100 100"><path d="${arrows}" fill="none" stroke="var(--ink)" stroke-width=".35" opacity=".75"/>` +
      memories.map((m, i) => `<circle cx="${across(m[0])}" cy="${down(m[1])}" r="1.9" fill="${COLORS[BASIN_COLORS[i]]}" stroke="#fff" stroke-width=".5"/>${tag(across(m[0]) + 2.6, down(m[1]) - 1.6, i + 1)}`).join("") +
      found.points.map(([a, b]) => `<path d="M${across(a) - 2} ${down(b)}h4m-2 -2v4" stroke="var(--ink)" stroke-width=".8"/>`).join("") +
      `<polyline points="${path.map(([, a, b]) => `${across(a)},${down(b)}`).join(" ")}" fill="none" stroke="var(--ink)" stroke-width=".9"/>` +
      `<path d="M${across(x)} ${down(y)}L${across(mean[0])} ${down(mean[1])}" stroke="var(--ink)" stroke-width=".7" stroke-dasharray="1.5 1"/>` +
      `<circle cx="${across(x)}" cy="${down(y)}" r="1.7" fill="var(--paper)" stroke="var(--ink)" stroke-width=".8"/></svg>`;
    drawTree(path, sigma, right.clientWidth, Math.max(220, Math.min(left.clientWidth, 360)));
    const count = found.points.length, next = tree.find((at) => at.sigma < sigma && at.modes.length > count);
    return `At σ = ${figures(sigma, 3)} (β = ${figures(beta, 3)}) the ${memories.length} memories make ${count} ${count > 1 ? "basins" : "basin"}` +
      (next ? `; the next is born near σ = ${figures(next.sigma, 2)}. ` : "; no more are born. ") +
      `Sample ${sample} has come to (${fixed(x, 2)}, ${fixed(y, 2)}), its posterior mean is (${fixed(mean[0], 2)}, ${fixed(mean[1], 2)}).`;
  }
  function drawTree(path, sigma, width, height) {
    const frame = axes({
      box: [44, 26, width - 8, height - 40], x: [-HALF, HALF], y: [COLD, HOT], log: "y",
      xLabel: "horizontal place of the basins", yLabel: "noise level σ",
    });
    let svg = frame.svg;
    for (const { sigma: at, modes, of } of tree)
      modes.forEach(([x], k) => { svg += `<circle cx="${frame.x(x)}" cy="${frame.y(at)}" r="2.2" fill="${basinColor(of)(k)}"/>`; });
    const flow = path.filter(([, x]) => Math.abs(x) <= HALF).map(([at, x]) => `${frame.x(x)},${frame.y(at)}`);
    svg += `<polyline points="${flow.join(" ")}" fill="none" stroke="var(--ink)" stroke-width="1.6"/>` +
      `<path d="M${frame.x(-HALF)} ${frame.y(sigma)}H${frame.x(HALF)}" stroke="var(--soft)" stroke-dasharray="4 3"/>`;
    right.innerHTML = `<svg viewBox="0 0 ${width} ${height}" height="${height}" aria-hidden="true">${svg}</svg>`;
  }
  const mend = (values) => ({ ...values, sample: Math.round(values.sample), memories: mendPoints(values.memories) });
  const close = figure.start(draw, mend);
  return () => { picture.close(); close(); };
}

export default { render };
