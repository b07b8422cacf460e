// The panel beside the image: overlays with their labels, scores, messages.
const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Several overlays may have the same title.
export function title(layers, layer) {
  const same = layers.filter((each) => each.overlay.title === layer.overlay.title);
  return same.length > 1 ? `${layer.overlay.title} (${same.indexOf(layer) + 1})` : layer.overlay.title;
}

export function showMessage(text, done = false) {
  const message = byId("message");
  message.textContent = text;
  message.hidden = text === "";
  message.classList.toggle("done", done);
}

export function fillSelect(select, rows, chosen) {
  const before = select.value;
  select.replaceChildren(...rows.map(([value, text]) => element("option", { value, textContent: text })));
  if (rows.some(([value]) => value === before)) select.value = before;
  else if (rows[chosen]) select.value = rows[chosen][0];
}

export function fillLabels(select, labels) {
  fillSelect(select, labels.map((label) => [String(label.value), label.name]), 0);
}

function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.backgroundColor = `rgb(${colour.join(",")})`;
  return made;
}

function labelTable(overlay, unit) {
  const inMl = overlay.labels.some((label) => label.ml !== null);
  const rows = overlay.labels.map((label) => {
    const size = label.ml === null ? String(label.voxels) : label.ml.toFixed(label.ml < 10 ? 3 : 1);
    const heading = element("th", { scope: "row" }, swatch(label.colour), label.name);
    return element("tr", {}, heading, element("td", { textContent: size }));
  });
  const head = element("tr", {}, element("th", { scope: "col", textContent: "Label" }), element("th", { scope: "col", textContent: inMl ? "ml" : unit }));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function overlayItem(layers, layer, edited, unit, actions) {
  const name = title(layers, layer);
  const shown = element("input", { type: "checkbox", checked: layer.visible });
  shown.addEventListener("change", () => actions.toggle(layer, shown.checked));
  const opacity = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: layer.opacity });
  opacity.setAttribute("aria-label", `Opacity of ${name}`);
  opacity.addEventListener("input", () => actions.fade(layer, Number(opacity.value)));
  const button = (text, action) => {
    const made = element("button", { type: "button", textContent: text });
    made.setAttribute("aria-label", `${text} ${name}`);
    made.addEventListener("click", () => action(layer));
    return made;
  };
  const buttons = element("div", { className: "buttons" });
  if (layer.overlay.kind === "labels") {
    const correct = button("Correct", actions.correct);
    correct.disabled = edited !== null;
    buttons.append(correct, button("Save", actions.save));
  }
  buttons.append(button("Remove", actions.remove));
  const item = element(
    "li", {},
    element("label", { className: "head" }, shown, name),
    element("label", { className: "opacity" }, "Opacity", opacity),
  );
  if (layer.overlay.kind === "map") item.append("0 (dark) to 1 (bright)");
  else item.append(labelTable(layer.overlay, unit));
  item.append(buttons);
  return item;
}

export function drawOverlays(layers, edited, unit, actions) {
  const items = layers.map((layer) => overlayItem(layers, layer, edited, unit, actions));
  byId("overlays").replaceChildren(...items);
}

export function drawScores(rows) {
  const cells = rows.map((row) => element(
    "tr", {},
    element("th", { scope: "row", textContent: row.name }),
    ...[row.dice.toFixed(4), row.first, row.second].map((text) => element("td", { textContent: text })),
  ));
  byId("scores").tBodies[0].replaceChildren(...cells);
  byId("scores").hidden = false;
}
