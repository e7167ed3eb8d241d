// Panel: sliders over pictures that Python draws, when it is asked or, for a page, all beforehand.

function render({ model, el }) {
  const { sliders, held, frames } = model.get("data");
  const label = `Panel: a picture for each ${sliders.map((slider) => slider.label).join(" and ")}`;
  const figure = mount(model, el, { kind: "panel", label, given: null, answers: ["picture", "sentence"] });
  const image = make("img", { style: "max-width:100%;height:auto;display:block" });
  figure.stage.append(image);
  for (const { name, label, values, texts } of sliders)
    figure.slider({ name, label, stops: values, text: (value) => texts[values.indexOf(value)] });
  if (frames) el.querySelector(".hk").append(note(frames.length, held));

  let shown;
  function show(picture) {
    if (picture === shown) return;
    shown = picture;
    const before = image.src;
    image.src = frames ? picture : URL.createObjectURL(new Blob([picture], { type: "image/png" }));
    if (!frames && before) URL.revokeObjectURL(before);
  }
  function draw(values) {
    // The last slider runs fastest, as in Python's itertools.product.
    const number = sliders.reduce((sum, { name, values: stops }) => sum * stops.length + stops.indexOf(values[name]), 0);
    const { picture, sentence } = frames?.[number] ?? { picture: model.get("picture"), sentence: model.get("sentence") };
    show(picture);
    return (image.alt = sentence);
  }
  const close = figure.start(draw);
  return () => { close(); if (!frames) URL.revokeObjectURL(image.src); };
}

/** One quiet line: what the page computes by itself, and how to get the rest. */
function note(count, held) {
  const fixed = held.length ? ` Held here: ${held.join(", ")}.` : "";
  const summary = make("summary", {}, `${count} pictures, drawn when this page was built.${fixed} Run it live`);
  const how = make("p", {}, "Clone the book's repository, type make lab, open this chapter's notebook and run its cells: each control then calls Python.");
  return make("details", { class: "hk-note" }, summary, how);
}

export default { render };
