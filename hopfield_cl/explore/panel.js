// Sliders over frames that were drawn beforehand. No framework, no request, no outside name.
function render(root, { sliders, frames, held }) {
  const image = document.createElement("img");
  image.style.cssText = "max-width:100%;height:auto;display:block";
  const sentence = document.createElement("p");
  sentence.setAttribute("role", "status");
  const positions = sliders.map((slider) => slider.start);
  const show = () => {
    // The last slider runs fastest, as in Python's itertools.product.
    const index = positions.reduce((sum, at, k) => sum * sliders[k].texts.length + at, 0);
    image.src = frames[index].image;
    image.alt = frames[index].sentence;
    sentence.textContent = frames[index].sentence;
  };
  const controls = sliders.map((slider, k) => {
    const row = document.createElement("label");
    row.style.cssText = "display:flex;flex-wrap:wrap;align-items:center;gap:0 1em;min-height:44px";
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: 0, max: slider.texts.length - 1, step: 1 });
    input.value = slider.start;
    input.style.cssText = "flex:1 1 12em;min-height:44px;max-width:32em";
    const value = document.createElement("output");
    value.style.cssText = "min-width:4em";
    const write = () => {
      positions[k] = Number(input.value);
      value.textContent = slider.texts[positions[k]];
      input.setAttribute("aria-valuetext", `${slider.label} ${value.textContent}`);
    };
    write();
    input.addEventListener("input", () => { write(); show(); });
    row.append(slider.label, input, value);
    return row;
  });
  // One quiet line: what this page computes by itself, and how to get the rest.
  const note = document.createElement("details");
  note.className = "hcl-note";
  const summary = document.createElement("summary");
  summary.style.cssText = "min-height:44px;display:inline-flex;align-items:center;cursor:pointer";
  const fixed = held.length ? ` Held here: ${held.join(", ")}.` : "";
  summary.textContent = `${frames.length} pictures, drawn when this page was built.${fixed} Run it live`;
  const how = document.createElement("p");
  how.textContent = "Clone the book's repository, type make lab, open this chapter's notebook and run "
    + "its cells: each control then calls Python.";
  note.append(summary, how);
  show();
  root.prepend(...controls, image, sentence, note);
}
