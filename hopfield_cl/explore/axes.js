// Axes, for the figures that plot numbers.

/** Round numbers between two limits. */
function ticks(low, high, log, wanted = 5) {
  const found = [];
  if (log) {
    for (let ten = Math.floor(Math.log10(low)); ten <= Math.log10(high); ten++)
      for (const lead of [1, 2, 5]) found.push(Number(`${lead}e${ten}`));
  } else {
    const rough = (high - low) / wanted, ten = 10 ** Math.floor(Math.log10(rough));
    const step = ten * [1, 2, 5, 10].find((lead) => lead * ten >= rough * 0.999);
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++)
      found.push(Number((k * step).toPrecision(12)));
  }
  return found.filter((value) => value >= low - 1e-9 && value <= high + 1e-9);
}

/**
 * Axes as SVG text. box: [left, top, right, bottom] of the plot; x, y: [from, to], from left to
 * right and from bottom to top; log: "x", "y" or "xy". Gives { svg, x(value), y(value) } in pixels.
 */
function axes({ box: [left, top, right, bottom], x, y, xLabel = "", yLabel = "", log = "", bars }) {
  const scale = ([from, to], start, end, isLog) => {
    const f = isLog ? Math.log : Number;
    return (value) => start + ((end - start) * (f(value) - f(from))) / (f(to) - f(from));
  };
  const px = scale(x, left, right, log.includes("x")), py = scale(y, bottom, top, log.includes("y"));
  const line = (a, b, c, d, name) => `<line class="hk-${name}" x1="${a}" y1="${b}" x2="${c}" y2="${d}"/>`;
  const text = (a, b, anchor, what) => `<text x="${a}" y="${b}" text-anchor="${anchor}">${what}</text>`;
  let svg = text(left - 34, top - 10, "start", yLabel) + text(right, bottom + 34, "end", xLabel);
  const many = (span, each) => Math.max(2, Math.floor(span / each));
  for (const value of ticks(...y, log.includes("y"), many(bottom - top, 34)))
    svg += line(left, py(value), right, py(value), "grid") + text(left - 6, py(value) + 4, "end", figures(value, 6));
  if (!bars) // bars carry their own names below the axis
    for (const value of ticks(...x, log.includes("x"), many(right - left, 60)))
      svg += line(px(value), bottom, px(value), bottom + 4, "axis") + text(px(value), bottom + 17, "middle", figures(value, 6));
  return { svg: svg + line(left, bottom, right, bottom, "axis"), x: px, y: py };
}

