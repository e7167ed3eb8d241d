// Record: a browser of recorded experiments, over step, strategy and budget.

// Colour, dashes and mark of a strategy, as in chapter 7; others take what is left, in order.
const STYLES = {
  greedy: ["green", "", "circle"], highest: ["orange", "", "up"], stratified: ["purple", "6 3", "diamond"],
  random: ["sky", "6 3", "square"], lowest: ["blue", "7 3 2 3", "down"],
};
const SPARE = [["amber", "2 3", "plus"], ["ink", "9 3", "bar"]];
const MARKS = {
  circle: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", up: "M0 -5.5l5 9h-10z", down: "M0 5.5l5 -9h-10z",
  diamond: "M0 -6l5 6l-5 6l-5 -6z", square: "M-4 -4h8v8h-8z",
  plus: "M-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z", bar: "M-5.5 -2h11v4h-11z",
};

/** All numbers of the figure: the curves of all strategies at a step, and the chosen cell. */
export function compute({ step, strategy, budget, measure, data }) {
  const at = data.steps.indexOf(step), row = data.strategies.indexOf(strategy), column = data.budgets.indexOf(budget);
  const curves = data.values[measure][at];
  return {
    chosen: curves[row][column],
    without: curves[row][0],
    curves: Object.fromEntries(data.strategies.map((name, k) => [name, curves[k]])),
    images: data.images[at][row][column],
    images_without: data.images[at][row][0],
  };
}

function render({ model, el }) {
  const data = model.get("data"), { labels, sheet } = data;
  const figure = mount(model, el, { kind: "record", label: "Record: a recorded experiment, and its images", given: data.given });
  const name = (key) => labels[key] ?? key;
  figure.slider({ name: "budget", label: name("budget"), stops: data.budgets });
  figure.slider({ name: "step", label: name("step"), stops: data.steps });
  figure.choice({ name: "strategy", label: name("strategy"), options: Object.fromEntries(data.strategies.map((key) => [key, name(key)])) });
  figure.choice({ name: "measure", label: "measure", options: data.measures });

  const left = [...Object.entries(STYLES).filter(([key]) => !data.strategies.includes(key)).map(([, look]) => look), ...SPARE];
  const unnamed = data.strategies.filter((key) => !(key in STYLES));
  const looks = Object.fromEntries(data.strategies.map((key) => [key, STYLES[key] ?? left[unnamed.indexOf(key) % left.length]]));
  const glyph = (key, x, y) => `<path transform="translate(${x} ${y})" d="${MARKS[looks[key][2]]}" fill="var(--${looks[key][0]})" stroke="var(--paper)"/>`;
  const chart = make("div", { "aria-hidden": "true", style: "flex:1 1 22em;min-width:0" });
  const plot = make("div", { style: "cursor:pointer" }), legend = make("div", { style: "display:flex;flex-wrap:wrap;gap:0 1em;font-size:13px" });
  const gallery = make("div", { "aria-hidden": "true", style: "flex:1 1 20em;min-width:0;font-size:12px" });
  const made = make("div", { style: "flex:1 1 100%;font-size:12px;color:var(--soft);overflow-wrap:anywhere" }, data.made);
  chart.append(plot, legend);
  figure.stage.append(chart, gallery, made);
  figure.stage.style.cssText += ";display:flex;flex-wrap:wrap;gap:0.5em 1.5em";

  let spots = [];
  plot.addEventListener("click", (event) => {
    const box = plot.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const far = (spot) => Math.hypot(spot.x - x, spot.y - y);
    const near = spots.reduce((best, spot) => (far(spot) < far(best) ? spot : best), spots[0]);
    if (near) figure.set({ strategy: near.strategy, budget: near.budget });
  });

  function drawChart(values, found) {
    const width = plot.clientWidth, box = [46, 28, width - 12, 250], cells = data.values[values.measure].flat(2).filter((cell) => cell.length);
    // One scale for all steps, with zero on it, so that steps can be compared.
    const low = Math.min(0, ...cells.map(([value, error]) => value - error)), high = Math.max(0, ...cells.map(([value, error]) => value + error));
    const frame = axes({ box, x: [-0.3, data.budgets.length - 0.7], y: [low, high > low ? high : 1], xLabel: `${name("budget")}, not to scale`, yLabel: data.measures[values.measure], bars: true });
    let svg = frame.svg + `<line class="hk-axis" x1="${box[0]}" y1="${frame.y(0)}" x2="${box[2]}" y2="${frame.y(0)}"/>`;
    data.budgets.forEach((budget, k) => { svg += `<text x="${frame.x(k)}" y="${box[3] + 17}" text-anchor="middle">${figures(budget, 6)}</text>`; });
    spots = [];
    data.strategies.forEach((strategy, row) => {
      const [color, dashes] = looks[strategy], chosen = strategy === values.strategy;
      const points = found.curves[strategy].map((cell, k) => cell.length && {
        strategy, budget: data.budgets[k], x: frame.x(k) + 1.5 * (row - (data.strategies.length - 1) / 2), y: frame.y(cell[0]), error: Math.abs(frame.y(cell[1]) - frame.y(0)),
      }).filter(Boolean);
      svg += `<polyline points="${points.map(({ x, y }) => `${x},${y}`).join(" ")}" fill="none" stroke="var(--${color})" stroke-width="${chosen ? 3 : 1.5}" stroke-dasharray="${dashes}"/>`;
      for (const { x, y, error } of points) svg += `<path d="M${x} ${y - error}V${y + error}" stroke="var(--ink)"/>` + glyph(strategy, x, y);
      spots.push(...points);
    });
    const here = spots.find((spot) => spot.strategy === values.strategy && spot.budget === values.budget);
    if (here) svg += `<circle cx="${here.x}" cy="${here.y}" r="10" fill="none" stroke="var(--ink)" stroke-width="2"/>`;
    plot.innerHTML = `<svg viewBox="0 0 ${width} 290" height="290">${svg}</svg>`;
    legend.innerHTML = "";
    for (const key of data.strategies) {
      const entry = make("span", { style: `white-space:nowrap;font-weight:${key === values.strategy ? 700 : 400}` });
      const [color, dashes] = looks[key];
      entry.innerHTML = `<svg viewBox="0 0 34 14" width="34" height="14" style="display:inline;width:34px;vertical-align:-2px"><path d="M1 7H33" stroke="var(--${color})" stroke-width="2" stroke-dasharray="${dashes}"/>${glyph(key, 17, 7)}</svg> `;
      entry.append(name(key));
      legend.append(entry);
    }
  }

  const picture = new Image();
  const lines = {}; // one row of images: its heading and its canvas
  function line(title) {
    const heading = make("div"), canvas = make("canvas", { style: "display:block;image-rendering:pixelated" });
    gallery.append(heading, canvas);
    return (lines[title] = { heading, canvas });
  }
  function drawImages(title, numbers, says) {
    const { heading, canvas } = lines[title] ?? line(title);
    const size = Math.floor(clamp(gallery.clientWidth / Math.max(1, numbers.length), 8, 48)), ratio = devicePixelRatio;
    heading.textContent = says;
    for (const example of names.children) example.style.width = `${size}px`;
    canvas.width = numbers.length * size * ratio;
    canvas.height = size * ratio;
    canvas.style.width = `${numbers.length * size}px`;
    canvas.style.height = `${size}px`;
    if (!picture.complete || !picture.naturalWidth) return;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    numbers.forEach((number, k) => {
      const column = number % sheet.columns, row = Math.floor(number / sheet.columns);
      pen.drawImage(picture, column * sheet.width, row * sheet.height, sheet.width, sheet.height, k * size * ratio, 0, (size - 2) * ratio, (size - 2) * ratio);
    });
  }
  const names = make("div", { style: "display:flex;font-size:10px" });
  for (const example of data.examples) names.append(make("span", { style: "flex:none;text-align:center" }, example));
  if (data.examples.length) gallery.append(make("div", {}, data.examples_label), names);
  function drawGallery(values, found) {
    for (const [title, numbers] of Object.entries(data.rows)) drawImages(title, numbers, title);
    drawImages("without", found.images_without, `after the change, budget ${figures(data.budgets[0], 6)}`);
    drawImages("with", found.images, `after the change, ${name(values.strategy)}, budget ${figures(values.budget, 6)}`);
  }
  if (sheet) {
    picture.addEventListener("load", figure.redraw);
    picture.src = sheet.url;
  } else gallery.remove();

  function draw(values) {
    const found = compute({ ...values, data });
    drawChart(values, found);
    if (sheet) drawGallery(values, found);
    const told = ([value, error]) => `${figures(value, 3)} ± ${figures(error, 2)}`;
    const where = `${name("step")} ${figures(values.step, 3)}, ${name(values.strategy)}, budget ${figures(values.budget, 6)}: `;
    const at = where[0].toUpperCase() + where.slice(1);
    const column = data.budgets.indexOf(values.budget), title = data.measures[values.measure];
    if (!found.chosen.length) return `${at}not recorded.`;
    const all = data.strategies.filter((key) => found.curves[key][column].length).sort((a, b) => found.curves[b][column][0] - found.curves[a][column][0]);
    const order = all.map((key) => `${name(key)} ${figures(found.curves[key][column][0], 3)}`).join(", ");
    return `${at}${title} ${told(found.chosen)}` +
      (found.without.length && column ? `; at budget ${figures(data.budgets[0], 6)} it is ${told(found.without)}` : "") +
      `. At this budget, from the highest: ${order}.`;
  }
  return figure.start(draw);
}

export default { render };
