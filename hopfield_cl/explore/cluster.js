// The cluster with an outlier, and rotations of it: what figures on the solvable setting share.
// Its memories span SPAN = n + 2 axes of the d dimensions: u, v_1 … v_n, v. Of a rotation V only
// the block on these axes enters ξ·(V x), and of V = exp(εΩ) it is Σ_k ε^k/k! (block of Ω^k): once
// these blocks are known, a rotation of another size ε costs next to nothing.

const CLUSTER = 12, DIM = 50, SPAN = CLUSTER + 2;
const POWERS = 26; // ‖εΩ‖ is about 10 ε, at most 2: the rest of the series is below 1e-17

/** Memories, one a row, the outlier last, on the SPAN axes that they fill. */
function clusterWithOutlier(correlation, overlap) {
  const memories = Array.from({ length: CLUSTER + 1 }, () => new Float64Array(SPAN));
  memories.forEach((memory, i) => {
    const out = i === CLUSTER, along = out ? overlap : Math.sqrt(correlation);
    memory[0] = along;
    memory[i + 1] = out ? Math.sqrt(1 - overlap * overlap) : Math.sqrt(1 - correlation);
  });
  return memories;
}

const dot = (a, b) => { let sum = 0; for (let k = 0; k < a.length; k++) sum += a[k] * b[k]; return sum; };

/** β⁻¹ log Σ exp(β scores), the part of the energy that knows the memories. */
function softMaximum(scores, beta) {
  let top = -Infinity, sum = 0;
  for (const score of scores) top = Math.max(top, score);
  for (const score of scores) sum += Math.exp(beta * (score - top));
  return top + Math.log(sum) / beta;
}

/** Blocks of Ω^k/k!, k < POWERS, on the first `span` axes, for Ω = (W − Wᵀ)/2 with W from `normals(seed)`. */
function rotationPowers(seed, span = SPAN) {
  const w = normals(seed, DIM * DIM), omega = new Float64Array(DIM * DIM);
  for (let i = 0; i < DIM; i++)
    for (let j = 0; j < DIM; j++) omega[i * DIM + j] = (w[i * DIM + j] - w[j * DIM + i]) / 2;
  const blocks = new Float64Array(POWERS * span * span);
  for (let j = 0; j < span; j++) {
    let column = new Float64Array(DIM);
    column[j] = 1;
    for (let k = 0; k < POWERS; k++) {
      for (let i = 0; i < span; i++) blocks[(k * span + i) * span + j] = column[i];
      const next = new Float64Array(DIM);
      for (let i = 0; i < DIM; i++) {
        let sum = 0;
        for (let l = 0; l < DIM; l++) sum += omega[i * DIM + l] * column[l];
        next[i] = sum / (k + 1);
      }
      column = next;
    }
  }
  return blocks;
}

/** Block of V = exp(εΩ) on the axes of `powers`, row by row. */
function rotationBlock(powers, epsilon) {
  const size = powers.length / POWERS, block = new Float64Array(size);
  for (let k = POWERS - 1; k >= 0; k--)
    for (let i = 0; i < size; i++) block[i] = block[i] * epsilon + powers[k * size + i];
  return block;
}

/** A round number at or above a size, of few: limits that seldom jump. */
function roundUp(size) {
  const ten = 10 ** Math.floor(Math.log10(size));
  return ten * [1, 1.5, 2, 3, 4, 6, 8, 10].find((lead) => lead * ten >= size * 0.9999);
}
