// Budget: what a replay budget protects, and what is lost.

const POOL = CLUSTER + 3, WIDE = SPAN + 2;
const WAYS = { highest: "highest energy", greedy: "greedy", random: "random", lowest: "lowest energy" };
const everyone = [...Array(POOL).keys()], kindOf = (k) => (k >= CLUSTER) + (k > CLUSTER);

const total = (values) => values.reduce((sum, value) => sum + value, 0);
const rounded = (value) => Math.round(value * 1e9) / 1e9; // lest the last digits decide
const ascending = (values) => [...values.keys()].sort((a, b) => values[a] - values[b] || a - b);
const minus = (a, b) => a.map((value, k) => value - b[k]);

/** The cluster, the outlier and, along two axes of their own, the twins. */
function pool(overlap) {
  const twin = (product) => [...Array(SPAN).fill(0), product, Math.sqrt(1 - product * product)];
  return [...clusterWithOutlier(0.35, overlap).map((memory) => [...memory, 0, 0]), twin(1), twin(0.98)];
}

/** Fixed point of each memory. */
function settle(memories, beta) {
  const gram = memories.map((a) => memories.map((b) => dot(a, b)));
  return everyone.map((start) => {
    let share = everyone.map((i) => Number(i === start));
    for (let step = 0, moved = 1; step < 20000 && moved > 1e-13; step++) {
      const scores = gram.map((row) => dot(row, share)), soft = softMaximum(scores, beta);
      const next = scores.map((score) => Math.exp(beta * (score - soft)));
      moved = total(minus(next, share).map(Math.abs));
      share = next;
    }
    return memories[0].map((_, axis) => total(memories.map((memory, i) => share[i] * memory[axis])));
  });
}

/** Total gain of the first 0, 1, … choices. */
function budgetCurve(order, odds, beta) {
  const held = Array(POOL).fill(0);
  return [0, ...order.map((r) => {
    odds[r].forEach((value, k) => { held[k] += value; });
    return total(held.map(Math.log1p)) / beta;
  })];
}

/** Add, one at a time, what raises the total gain most. */
function greedyOrder(odds) {
  const order = [];
  while (order.length < POOL) {
    const gains = everyone.map((r) => (order.includes(r) ? -1 : budgetCurve([...order, r], odds, 1).at(-1)));
    order.push(gains.findIndex((gain) => gain >= Math.max(...gains) * (1 - 4e-15)));
  }
  return order;
}

/** All numbers of the figure; of memories, the cluster first and the twins last. */
export function compute({ budget, strategy, outlier_overlap, beta, epsilon, rotation }) {
  const old = pool(outlier_overlap), points = settle(old, beta);
  const block = rotationBlock(rotationPowers(rotation, WIDE), epsilon);
  const turned = old.map((memory) => memory.map((_, row) => dot(memory, block.subarray(row * WIDE))));
  const soft = (memories) => points.map((point) => softMaximum(memories.map((memory) => dot(memory, point)), beta));
  const oldSoft = soft(old), newSoft = soft(turned);
  const odds = (against) => old.map((memory) => points.map((point, k) => Math.exp(beta * (dot(memory, point) - against[k]))));
  const after = odds(newSoft), before = odds(oldSoft), energy = points.map((point, k) => dot(point, point) / 2 - oldSoft[k]);
  const orders = {
    highest: [ascending(energy.map((value) => -rounded(value)))],
    greedy: [greedyOrder(after.map((row) => row.map(rounded)))],
    lowest: [ascending(energy.map(rounded))],
    random: Array.from({ length: 20 }, (_, draw) => ascending(normals(100 * rotation + 1 + draw, POOL))),
  };
  const curves = (f) => Object.fromEntries(Object.entries(orders).map(([way, rows]) => [way, rows.map(f)]));
  const curve = (order) => budgetCurve(order, after, beta), chosen = orders[strategy][0].slice(0, budget);
  const gain = (of) => everyone.map((k) => Math.log1p(total(chosen.map((r) => of[r][k]))) / beta);
  return {
    energy, chosen,
    rise: minus(oldSoft, newSoft),
    basin: points.map((point) => points.findIndex((other) => Math.hypot(...minus(other, point)) < 1e-3)),
    net: minus(gain(after), gain(before)),
    mass: gain(before),
    with_mass: curves(curve),
    net_of_mass: curves((order) => minus(curve(order), budgetCurve(order, before, beta))),
  };
}

/** The mean, or another `f`, of the draws at each budget. */
const over = (rows, f = (values) => total(values) / values.length) => rows[0].map((_, k) => f(rows.map((row) => row[k])));

/** Some memories, in words. */
const tell = (some) => ["cluster vector", "outlier", "twin"].map((name, kind) => [some.filter((k) => kindOf(k) === kind).length, name])
  .filter(([count]) => count).map(([count, name]) => `${count} × ${name}`).join(", ") || "none";

const INK = "stroke:var(--ink)", PAPER = "fill:var(--paper)";
const write = (x, y, what, style = "", anchor = "middle") => `<text x="${x}" y="${y}" text-anchor="${anchor}" style="${style}">${what}</text>`;
const path = (d, style) => `<path d="${d}" style="${style}"/>`;
const limits = (values) => [-1, 1].map((sign) => sign * roundUp(Math.max(1e-9, ...values.map((value) => sign * value))));

/** Rise of each memory and what replay leaves of it, memories of a basin side by side. */
function drawBars({ rise, net, mass, basin, chosen }, counted, box) {
  const [left, , right, bottom] = box, rest = minus(rise, net), end = minus(rest, mass);
  const frame = axes({ box, x: [0, 1], y: limits([...rise, ...rest, ...(counted ? end : [])]), yLabel: `ΔE (‖x‖² units): ■ left, □ taken back${counted ? ", ◇ with mass" : ""}`, bars: true });
  const unit = (right - left) / (POOL + 0.3 * new Set(basin).size), half = 0.4 * unit, low = bottom + 49, at = [], joined = {};
  let svg = frame.svg, x = left - unit / 2;
  for (const k of ascending(basin)) {
    x += joined[basin[k]] ? unit : 1.3 * unit;
    at[k] = x;
    (joined[basin[k]] ??= []).push(x);
    const color = `var(--${["cluster", "outlier", "purple"][kindOf(k)]})`;
    const bar = (to, style) => path(`M${x - half} ${frame.y(0)}V${frame.y(to)}H${x + half}V${frame.y(0)}z`, style);
    svg += bar(rest[k], `fill:${color}`) + bar(rise[k], `fill:none;stroke:${color};stroke-width:1.5`);
    if (counted) svg += path(`M${x} ${frame.y(rest[k])}V${frame.y(end[k])}`, INK) + path(`M${x} ${frame.y(end[k]) - 5}l5 5l-5 5l-5 -5z`, `${PAPER};${INK}`);
  }
  chosen.forEach((k, place) => {
    svg += path(`M${at[k]} ${bottom + 14}h0`, `${INK};stroke-width:${Math.min(18, 1.1 * unit)};stroke-linecap:round`) + write(at[k], bottom + 18, place + 1, `${PAPER};font-size:11px`);
  });
  for (const places of Object.values(joined)) svg += path(`M${places[0] - half} ${bottom + 28}v5H${places.at(-1) + half}v-5`, `fill:none;${INK}`);
  return svg + write(at[5], low, "cluster (12)") + write(at[CLUSTER] + half, low, "outlier", "", "end") + write(at[CLUSTER + 1] - half, low, "twins", "", "start");
}

/** Total gain over budgets, the strategy chosen in bold and the present budget marked. */
function drawCurves(rows, { strategy, budget }, yLabel, box) {
  const [low, high] = [Math.min, Math.max].map((f) => over(rows.random, (values) => f(...values)));
  const frame = axes({ box, x: [0, POOL], y: limits(Object.values(rows).flat(2)), xLabel: "budget K", yLabel });
  const points = (values) => values.map((value, k) => `${frame.x(k)} ${frame.y(value)}`);
  let svg = frame.svg + path(`M${[...points(low), ...points(high).reverse()].join("L")}z`, "fill:var(--soft);opacity:0.25");
  Object.keys(WAYS).forEach((way, place) => {
    const color = `var(--${["outlier", "green", "soft", "cluster"][place]})`, bold = way === strategy, means = over(rows[way]);
    const mark = `<tspan style="fill:${color}">${"▲●■▼"[place]}</tspan>`;
    svg += path(`M${points(means).join("L")}`, `fill:none;stroke:${color};stroke-width:${bold ? 3.5 : 1.5}`) +
      means.map((mean, k) => write(frame.x(k), frame.y(mean) + 4, mark)).join("") +
      write(40 + 76 * place, 13, `${mark} ${way}`, bold ? "font-weight:700" : "");
  });
  return svg + path(`M${frame.x(budget) - 7} ${frame.y(rows[strategy][0][budget])}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0`, `fill:none;${INK};stroke-width:2`);
}

function render({ model, el }) {
  const figure = mount(model, el, { kind: "budget", label: "Budget: what replay protects" });
  figure.slider({ name: "budget", label: "replay budget K, of 15", min: 0, max: POOL, steps: POOL, text: String });
  figure.choice({ name: "strategy", label: "replay by", options: WAYS });
  figure.choice({ name: "mass", label: "added mass", options: { apart: "left out", counted: "counted" } });
  figure.slider({ name: "outlier_overlap", label: "outlier’s overlap s (0: far)", min: 0, max: 1 });
  figure.slider({ name: "beta", label: "inverse temperature β", min: 2, max: 32, steps: 80, log: true });
  figure.slider({ name: "epsilon", label: "task rotation ε (radians)", min: 0.01, max: 0.2, steps: 38 });
  figure.slider({ name: "rotation", label: "rotation", min: 1, max: 20, steps: 19, text: String });

  function draw(values, width) {
    const found = compute(values), counted = values.mass === "counted", title = `total gain, ${counted ? "with" : "net of"} mass (‖x‖² units)`;
    const narrow = width < 640, first = narrow ? width : 0.54 * width, tall = narrow ? 600 : 300;
    figure.stage.innerHTML = `<svg viewBox="0 0 ${width} ${tall}" height="${tall}" aria-hidden="true">${drawBars(found, counted, [44, 46, first - 12, 244])}` +
      `<g transform="translate(${narrow ? "0 300" : `${first} 0`})">${drawCurves(counted ? found.with_mass : found.net_of_mass, values, title, [44, 46, (narrow ? width : width - first) - 12, 244])}</g></svg>`;

    const rise = total(found.rise), percent = (value) => fixed((100 * value) / rise, 0), rest = minus(found.rise, found.net);
    const others = Object.keys(WAYS).map((way) => `${way} ${percent(over(found.net_of_mass[way])[values.budget])}`);
    return `Basins: ${new Set(found.basin).size}; total rise: ${figures(rise, 3)}. Replayed (${WAYS[values.strategy]}, K = ${values.budget}): ${tell(found.chosen)}. ` +
      `Taken back, net of mass: ${percent(total(found.net))}% (${others.join(", ")} on average); gain with mass: ${figures(total(found.net) + total(found.mass), 3)}. ` +
      `Protected by half or more: ${tell(everyone.filter((k) => rest[k] <= found.rise[k] / 2))}. Lost most: ${tell(ascending(rest).slice(-1))}, by ${figures(Math.max(...rest), 2)}.`;
  }
  return figure.start(draw, (values) => ({ ...values, budget: Math.round(values.budget), rotation: Math.round(values.rotation) }));
}

export default { render };
