// Basins in the plane: what Landscape and Cooling share. The same rules as in Python's `_plane.py`.

const HALF = 1.5, EDGE = 1.4; // how far the picture goes in both directions, and how far memories
const TOL = 1e-13, MAX_STEPS = 20000, NEAR = 1e-3; // fixed points nearer than NEAR are one
const NUDGE = [1e-7, -7e-8]; // so that no start balances on a ridge between two basins
const OFF = [0.5137, 0.4929]; // where in its cell a grid point lies: off the lines of symmetry
const RASTER = 1024, trail = new Int32Array(MAX_STEPS);
const BASIN_COLORS = ["blue", "orange", "green", "purple", "sky", "amber", "black"];

/** A landscape: memories [[x, y], …], β, and whether masses are those of smoothed data. */
function plane(memories, beta, smoothed) {
  const n = memories.length, share = new Float64Array(n);
  const X = Float64Array.from(memories, (m) => m[0]), Y = Float64Array.from(memories, (m) => m[1]);
  const L = X.map((x, i) => (smoothed ? (-beta * (x * x + Y[i] * Y[i])) / 2 : 0));
  const self = { x: 0, y: 0, z: 1, top: 0 };

  /** One retrieval step: leaves T in self.x, self.y and Σ w exp(β x·m) as self.z · exp(self.top). */
  function step(x, y) {
    let top = -Infinity, z = 0, tx = 0, ty = 0;
    for (let i = 0; i < n; i++) {
      share[i] = beta * (X[i] * x + Y[i] * y) + L[i];
      if (share[i] > top) top = share[i];
    }
    for (let i = 0; i < n; i++) {
      const e = (share[i] = Math.exp(share[i] - top));
      z += e; tx += e * X[i]; ty += e * Y[i];
    }
    self.x = tx / z; self.y = ty / z; self.z = z; self.top = top;
  }
  function energy(x, y) {
    step(x, y);
    return (x * x + y * y) / 2 - (self.top + Math.log(self.z)) / beta;
  }
  /** Smallest eigenvalue of I − β Cov. */
  function curvature(x, y) {
    step(x, y);
    let a = 0, b = 0, c = 0;
    for (let i = 0; i < n; i++) {
      const p = share[i] / self.z, u = X[i] - self.x, v = Y[i] - self.y;
      a += p * u * u; b += p * u * v; c += p * v * v;
    }
    return 1 - beta * ((a + c) / 2 + Math.sqrt(((a - c) / 2) ** 2 + b * b));
  }
  function settle(x, y) {
    for (let k = 0; k < MAX_STEPS; k++) {
      step(x, y);
      if ((self.x - x) ** 2 + (self.y - y) ** 2 <= TOL * TOL) break;
      x = self.x; y = self.y;
    }
    return [x, y];
  }
  /** Fixed points reached from the memories, and the number of the one each memory reaches. */
  function attractors() {
    const points = [];
    const of = memories.map(([x, y]) => number(points, settle(x + NUDGE[0], y + NUDGE[1])));
    return { points, of };
  }
  /**
   * Energy and basin on a grid, row by row from the top; may find further fixed points. With
   * `seen`, one byte a cell of a fine raster, a path that enters a cell where another has been ends
   * there: exact to a third of a pixel, and quick where retrieval is slow.
   */
  function grid(size, points, energies, labels, seen) {
    for (let k = 0; k < size * size; k++) {
      let x = HALF * ((2 * ((k % size) + OFF[0])) / size - 1);
      let y = HALF * (1 - (2 * (Math.floor(k / size) + OFF[1])) / size);
      energies[k] = energy(x, y);
      let label = -1, cells = 0;
      for (let s = 0; label < 0 && s < MAX_STEPS; s++) {
        const moved = (self.x - x) ** 2 + (self.y - y) ** 2;
        x = self.x; y = self.y;
        label = near(points, x, y);
        if (seen && label < 0) {
          const cell = Math.floor((x / HALF + 1) * RASTER / 2) + RASTER * Math.floor((y / HALF + 1) * RASTER / 2);
          label = seen[cell] - 1;
          trail[cells++] = cell;
        }
        if (label < 0 && moved < 1e-18) label = number(points, settle(x, y));
        if (label < 0) step(x, y);
      }
      labels[k] = label;
      while (cells) seen[trail[--cells]] = label + 1;
    }
  }
  return Object.assign(self, { step, energy, curvature, attractors, grid });
}

function near(points, x, y) {
  for (let k = 0; k < points.length; k++) {
    const u = points[k][0] - x, v = points[k][1] - y;
    if (u * u + v * v < NEAR * NEAR) return k;
  }
  return -1;
}

/** Number of a fixed point in the list, to which a new one is added. */
function number(points, [x, y]) {
  const found = near(points, x, y);
  return found < 0 ? points.push([x, y]) - 1 : found;
}

/** Memories from a link, made to fit. */
const mendPoints = (points) => points.slice(0, BASIN_COLORS.length).map((m) => [0, 1].map((k) => clamp(m[k] ?? 0, -EDGE, EDGE)));

/** A colour for each basin: that of its lowest-numbered memory. */
const basinColor = (of) => (k) => COLORS[BASIN_COLORS[of.indexOf(k)]] ?? "#888888";

/** A canvas of basins and lines of equal energy: coarse while things move, fine at rest. */
function basinPicture(stage) {
  const canvas = make("canvas", { class: "hk-picture", "aria-hidden": "true" });
  stage.append(canvas);
  const seen = new Uint8Array(RASTER * RASTER);
  let size = 64, timer = 0;
  function paint(size, p, { points, of }) {
    const energies = new Float64Array(size * size), labels = new Int16Array(size * size);
    p.grid(size, points.slice(), energies, labels, seen.fill(0));
    const low = Math.min(...points.map(([x, y]) => p.energy(x, y))), high = energies.reduce((a, b) => Math.max(a, b));
    const rgb = points.map((_, k) => [1, 3, 5].map((at) => parseInt(basinColor(of)(k).slice(at, at + 2), 16)));
    canvas.width = canvas.height = size;
    const context = canvas.getContext("2d"), image = context.createImageData(size, size);
    const depth = energies.map((e) => Math.sqrt((e - low) / (high - low)));
    for (let k = 0; k < size * size; k++) {
      const right = k % size < size - 1 ? k + 1 : k, below = k + size < size * size ? k + size : k;
      const band = (at) => Math.floor(depth[at] * 12);
      const border = labels[k] !== labels[right] || labels[k] !== labels[below];
      const contour = band(k) !== band(right) || band(k) !== band(below);
      const color = border ? [110, 110, 110] : (rgb[labels[k]] ?? [136, 136, 136]);
      image.data.set([...color, border ? 255 : 185 - 150 * depth[k] + (contour ? 60 : 0)], 4 * k);
    }
    context.putImageData(image, 0, 0);
  }
  function show(p, found) {
    const began = performance.now();
    paint(size, p, found);
    const took = performance.now() - began;
    size = clamp(size + (took > 9 ? -16 : took < 4 ? 8 : 0), 32, 96);
    clearTimeout(timer);
    timer = setTimeout(() => paint(192, p, found), 180);
  }
  return { canvas, show, close: () => clearTimeout(timer) };
}

/** From the plane to percent of the picture. */
const across = (x) => 50 + (50 * x) / HALF, down = (y) => 50 - (50 * y) / HALF;
