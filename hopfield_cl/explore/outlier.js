// Outlier: energy, curvature and rise of a cluster and its outlier, and what the law predicts.

const ROTATIONS = 32;
const OUT_TOL = 1e-13, OUT_STEPS = 20000;
let powers = null; // of the ROTATIONS rotations, made when first needed

/**
 * Where retrieval from memory k ends. By symmetry it is ξ = a x_k + b (the other cluster vectors) +
 * o x_outlier, so three shares are all there is to iterate.
 */
function settleShares(k, { correlation: c, outlier_overlap: s, beta }) {
  const out = k === CLUSTER, others = out ? CLUSTER : CLUSTER - 1, cross = s * Math.sqrt(c);
  // The memories' own product with ξ, from the shares of the three groups.
  const products = (a, b, o) => [
    a + others * b * c + o * cross,
    a * c + b * (1 + (others - 1) * c) + o * cross,
    (a + others * b) * cross + o,
  ];
  const softmax = ([own, other, outlier]) => {
    const top = Math.max(own, other, outlier);
    const a = out ? 0 : Math.exp(beta * (own - top)), b = Math.exp(beta * (other - top)), o = Math.exp(beta * (outlier - top));
    const z = a + others * b + o;
    return [a / z, b / z, o / z];
  };
  const norm = (a, b, o) => { const [own, other, outlier] = products(a, b, o); return a * own + others * b * other + o * outlier; };
  let share = out ? [0, 0, 1] : [1, 0, 0];
  for (let step = 0; step < OUT_STEPS; step++) {
    const next = softmax(products(...share));
    const moved = norm(next[0] - share[0], next[1] - share[1], next[2] - share[2]);
    if (moved <= OUT_TOL * OUT_TOL) break;
    share = next;
  }
  return { share, others, out };
}

/** Smallest eigenvalue of I − β Cov at ξ with attention p: groups against each other, and within. */
function smallestCurvature(share, { others, out }, { correlation: c, outlier_overlap: s, beta }) {
  const [a, b, o] = share, cross = s * Math.sqrt(c), mass = [a, others * b, o];
  // Products of the groups' means, and from them of the means less ξ.
  const mean = [[1, c, cross], [c, (1 + (others - 1) * c) / others, cross], [cross, cross, 1]];
  const to = mean.map((row) => row[0] * mass[0] + row[1] * mass[1] + row[2] * mass[2]);
  const all = to[0] * mass[0] + to[1] * mass[1] + to[2] * mass[2];
  const gram = mean.map((row, g) => row.map((value, h) => Math.sqrt(mass[g] * mass[h]) * (value - to[g] - to[h] + all)));
  const trace = gram[0][0] + gram[1][1] + gram[2][2];
  const minor = (g, h) => gram[g][g] * gram[h][h] - gram[g][h] ** 2;
  const minors = minor(0, 1) + minor(0, 2) + minor(1, 2); // one eigenvalue is 0
  const between = (trace + Math.sqrt(Math.max(0, trace * trace - 4 * minors))) / 2;
  return 1 - beta * Math.max(between, out || others > 1 ? b * (1 - c) : 0);
}

/** All numbers of the figure: one entry for each memory, the outlier last. */
export function compute(parameters) {
  const { correlation, outlier_overlap, beta, epsilon } = parameters;
  const memories = clusterWithOutlier(correlation, outlier_overlap);
  const kinds = [0, CLUSTER].map((k) => {
    const settled = settleShares(k, parameters), [a, b, o] = settled.share;
    const point = new Float64Array(SPAN);
    memories.forEach((m, i) => {
      const share = i === CLUSTER ? o : i === k ? a : b;
      for (let j = 0; j < SPAN; j++) point[j] += share * m[j];
    });
    const scores = memories.map((m) => dot(m, point)), soft = softMaximum(scores, beta);
    const norm2 = dot(point, point);
    const aside = scores.reduce((sum, score) => sum + Math.exp(beta * (score - soft)) * (norm2 - score * score), 0);
    return {
      point, norm2,
      energy: norm2 / 2 - soft,
      soft,
      curvature: smallestCurvature(settled.share, settled, parameters),
      law: (epsilon ** 2 / 4) * ((DIM - 1) * norm2 - beta * aside),
    };
  });
  const kindOf = (k) => kinds[k === CLUSTER ? 1 : 0];
  // The fixed point of memory k is that of memory 0 with the axes v_1 and v_{k+1} exchanged.
  const points = memories.map((_, k) => {
    const point = kindOf(k).point.slice();
    if (k > 0 && k < CLUSTER) [point[1], point[k + 1]] = [point[k + 1], point[1]];
    return point;
  });
  powers ??= Array.from({ length: ROTATIONS }, (_, r) => rotationPowers(r + 1));
  const sum = new Float64Array(CLUSTER + 1), square = new Float64Array(CLUSTER + 1);
  const turned = memories.map(() => new Float64Array(SPAN)), scores = new Float64Array(CLUSTER + 1);
  const rises = powers.map((power) => {
    const block = rotationBlock(power, epsilon);
    turned.forEach((t, i) => {
      for (let row = 0; row < SPAN; row++) {
        const at = row * SPAN;
        t[row] = block[at] * memories[i][0] + block[at + i + 1] * memories[i][i + 1];
      }
    });
    return points.map((point, k) => {
      turned.forEach((t, i) => { scores[i] = dot(point, t); });
      return kindOf(k).soft - softMaximum(scores, beta);
    });
  });
  for (const rise of rises) rise.forEach((value, k) => { sum[k] += value / ROTATIONS; });
  for (const rise of rises) rise.forEach((value, k) => { square[k] += (value - sum[k]) ** 2 / (ROTATIONS - 1); });
  const cluster = rises.map((rise) => rise.slice(0, -1).reduce((a, b) => a + b) / CLUSTER);
  const apart = (a, b) => Math.sqrt(a.reduce((far, value, j) => far + (value - b[j]) ** 2, 0));
  return {
    energy: points.map((_, k) => kindOf(k).energy),
    curvature: points.map((_, k) => kindOf(k).curvature),
    norm2: points.map((_, k) => kindOf(k).norm2),
    law: points.map((_, k) => kindOf(k).law),
    rise: [...sum],
    rise_error: [...square].map((value) => Math.sqrt(value / ROTATIONS)),
    cluster_rise: cluster.reduce((a, b) => a + b) / ROTATIONS,
    between_cluster: apart(points[0], points[1]),
    to_outlier: apart(points[0], points[CLUSTER]),
  };
}

function render({ model, el }) {
  const figure = mount(model, el, { kind: "outlier", label: "Outlier: energy, curvature and forgetting of a cluster and an outlier" });
  figure.slider({ name: "outlier_overlap", label: "outlier’s overlap s (0: far)", min: 0, max: 1 });
  figure.slider({ name: "correlation", label: "cluster’s tightness c", min: 0.05, max: 0.95, steps: 90 });
  figure.slider({ name: "beta", label: "inverse temperature β", min: 2, max: 32, steps: 80, log: true });
  figure.slider({ name: "epsilon", label: "task rotation ε (radians)", min: 0.01, max: 0.2, steps: 38 });

  function draw(values, width) {
    const found = compute(values), narrow = width < 600;
    const panels = [
      ["energy E (‖x‖² units)", found.energy],
      ["smallest curvature", found.curvature],
      ["rise ΔE (‖x‖² units): ◇ law", found.rise],
    ];
    const each = narrow ? width : width / 3, height = narrow ? 170 : 240;
    let svg = "";
    panels.forEach(([title, bars], panel) => {
      const left = (narrow ? 0 : panel * each) + 52, top = (narrow ? panel * height : 0) + 26;
      const box = [left, top, left + each - 66, top + height - 54];
      const more = panel === 2 ? [...found.law, ...bars.map((value, k) => value + found.rise_error[k])] : [];
      const low = Math.min(0, ...bars, ...more), high = Math.max(0, ...bars, ...more);
      const y = [low < 0 ? -roundUp(-low) : 0, high > 0 ? roundUp(high) : 0];
      const frame = axes({ box, x: [-0.5, bars.length - 0.5], y, yLabel: title, bars: true });
      const half = (0.36 * (box[2] - box[0])) / bars.length;
      svg += frame.svg;
      bars.forEach((value, k) => {
        const x = frame.x(k), from = frame.y(Math.max(0, value)), to = frame.y(Math.min(0, value));
        const color = k === CLUSTER ? "outlier" : "cluster";
        svg += `<rect x="${x - half}" y="${from}" width="${2 * half}" height="${to - from}" fill="var(--${color})"/>`;
        if (panel < 2) return;
        const error = found.rise_error[k], at = frame.y(found.law[k]);
        svg += `<path d="M${x} ${frame.y(value - error)}V${frame.y(value + error)}" stroke="var(--ink)" stroke-width="1.5"/>` +
          `<path d="M${x - 4} ${at}l4 -4l4 4l-4 4z" fill="var(--paper)" stroke="var(--ink)" stroke-width="1.5"/>`;
      });
      const under = (x, anchor, name, value) => [name, figures(value, 3)].map((line, row) => `<text x="${x}" y="${box[3] + 16 + 15 * row}" text-anchor="${anchor}">${line}</text>`).join("");
      svg += under(frame.x((CLUSTER - 1) / 2), "middle", "cluster (12)", panel < 2 ? bars[0] : found.cluster_rise) +
        under(frame.x(CLUSTER) + half, "end", "outlier", bars[CLUSTER]);
    });
    const total = narrow ? 3 * height : height;
    figure.stage.innerHTML = `<svg viewBox="0 0 ${width} ${total}" height="${total}" aria-hidden="true">${svg}</svg>`;
    const basins = found.to_outlier < 1e-3 ? "one basin holds all" : found.between_cluster < 1e-3 ? "the cluster shares one basin" : "each memory has a basin";
    const out = found.rise[CLUSTER], ratio = out / found.cluster_rise;
    return `At s = ${figures(values.outlier_overlap, 3)}, c = ${figures(values.correlation, 3)}, β = ${figures(values.beta, 3)} ${basins}. ` +
      `Energy: outlier ${fixed(found.energy[CLUSTER], 3)}, cluster ${fixed(found.energy[0], 3)}. ` +
      `At ε = ${figures(values.epsilon, 3)} the outlier rises by ${figures(out, 3)} ± ${figures(found.rise_error[CLUSTER], 1)} (law ${figures(found.law[CLUSTER], 3)}), ` +
      `the cluster by ${figures(found.cluster_rise, 3)} (law ${figures(found.law[0], 3)}), means of ${ROTATIONS} rotations: ` +
      `the outlier forgets ${ratio >= 1 ? "more" : "less"}, ${fixed(ratio, 2)} times as much.`;
  }
  return figure.start(draw);
}

export default { render };
