// The page of the viewer. Arrays have the axes right, anterior, superior, as the server sends them.
import { drawInBoxes, keepImageTexture } from "/page/drawing.js";
import { drawOverlays, drawScores, element, fillLabels, fillSelect, showMessage, title } from "/page/panel.js";

const { Niivue, NVImage, DRAG_MODE, SHOW_RENDER, SLICE_TYPE, cmapper } = globalThis.niivue;
const views = [
  ["planes", "Planes", SLICE_TYPE.MULTIPLANAR],
  ["axial", "Axial", SLICE_TYPE.AXIAL],
  ["coronal", "Coronal", SLICE_TYPE.CORONAL],
  ["sagittal", "Sagittal", SLICE_TYPE.SAGITTAL],
  ["volume", "3D", SLICE_TYPE.RENDER],
];
const byId = (id) => document.getElementById(id);
const nv = new Niivue({
  backColor: [0, 0, 0, 1],
  clipPlaneHotKey: "",
  crosshairColor: [0.94, 0.89, 0.26, 0.8],
  crosshairWidth: 0.3,
  crosshairWidthUnit: "percent",
  cycleClipPlaneHotKey: "",
  dragAndDropEnabled: false,
  dragMode: DRAG_MODE.contrast,
  isForceMouseClickToVoxelCenters: true,
  isNearestInterpolation: true,
  loadingText: "",
  logLevel: "error",
  multiplanarShowRender: SHOW_RENDER.ALWAYS,
  show3Dcrosshair: true,
  viewModeHotKey: "",
});
let state = null; // from the server: image, overlays, models
let layers = []; // shown overlays: {overlay, volume, opacity, visible}
let edited = null; // layer that is corrected
let erasing = false;
let job = null;

async function ask(method, path, body) {
  const response = await fetch(path, { method, body });
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error ?? `the server answered ${response.status}. Start the viewer again.`);
  }
  return response.status === 204 ? null : response.json();
}

// Run an action and show its failure.
function guarded(action) {
  return async (event) => {
    try {
      await action(event);
    } catch (error) {
      showMessage(error.message);
    }
  };
}

function lutOf(overlay) {
  const labels = overlay.labels;
  const column = (pick) => [0, ...labels.map(pick)];
  return {
    R: column((label) => label.colour[0]),
    G: column((label) => label.colour[1]),
    B: column((label) => label.colour[2]),
    A: column(() => 255).map((alpha, index) => (index === 0 ? 0 : alpha)),
    I: column((label) => label.value),
    labels: ["", ...labels.map((label) => label.name)],
  };
}

async function addLayer(overlay) {
  const isMap = overlay.kind === "map";
  const options = { url: `/view/overlays/${overlay.id}.nii`, name: `${overlay.id}.nii`, opacity: isMap ? 0.5 : 0.6 };
  const volume = await NVImage.loadFromUrl(
    isMap ? { ...options, colormap: "inferno", cal_min: 0, cal_max: 1 } : options,
  );
  if (!isMap) volume.setColormapLabel(lutOf(overlay));
  nv.addVolume(volume);
  const layer = { overlay, volume, opacity: options.opacity, visible: true };
  layers.push(layer);
  refreshPanel();
  return layer;
}

function applyOpacity(layer) {
  const shown = layer.visible && layer !== edited;
  nv.setOpacity(nv.volumes.indexOf(layer.volume), shown ? layer.opacity : 0);
  if (layer === edited) nv.setDrawOpacity(layer.visible ? layer.opacity : 0);
}

function refreshPanel() {
  drawOverlays(layers, edited, state.is_volume ? "voxels" : "pixels", {
    toggle: (layer, visible) => { layer.visible = visible; applyOpacity(layer); nv.createOnLocationChange(); },
    fade: (layer, opacity) => { layer.opacity = opacity; applyOpacity(layer); },
    correct: guarded((layer) => correct(layer)),
    save: guarded((layer) => save(layer)),
    remove: guarded((layer) => remove(layer)),
  });
  const maps = layers.filter((layer) => layer.overlay.kind === "labels");
  byId("compare-section").hidden = maps.length < 2;
  const names = maps.map((layer) => [layer.overlay.id, title(layers, layer)]);
  fillSelect(byId("first"), names, 0);
  fillSelect(byId("second"), names, 1);
  const other = names.find(([id]) => id !== byId("first").value);
  if (other && byId("second").value === byId("first").value) byId("second").value = other[0];
  if (state.ready) nv.createOnLocationChange();
}

function correct(layer) {
  if (edited) throw new Error("Keep or discard the changes first.");
  if (String(nv.volumes[0].permRAS) !== "1,2,3") throw new Error("The axes of this image are too oblique to draw on.");
  if (!nv.loadDrawing(layer.volume)) throw new Error("The label map has another grid than the image.");
  edited = layer;
  nv.drawLut = cmapper.makeDrawLut(lutOf(layer.overlay));
  layer.visible = true;
  applyOpacity(layer);
  byId("edit").hidden = false;
  byId("edit-title").textContent = title(layers, layer);
  fillLabels(byId("label"), layer.overlay.labels);
  nv.setDrawingEnabled(true);
  choosePen(false);
  refreshPanel();
  byId("picture").focus();
}

function choosePen(eraser) {
  erasing = eraser;
  byId("brush").setAttribute("aria-pressed", String(!eraser));
  byId("eraser").setAttribute("aria-pressed", String(eraser));
  nv.opts.penSize = Math.max(1, Number(byId("size").value) || 1);
  nv.setPenValue(eraser ? 0 : Number(byId("label").value), false);
}

// Draw a square in the axial plane at the crosshair.
function drawAtCrosshair() {
  const [x, y, z] = nv.frac2vox(nv.scene.crosshairPos);
  nv.drawPenAxCorSag = SLICE_TYPE.AXIAL;
  nv.drawPt(x, y, z, erasing ? 0 : Number(byId("label").value));
  nv.drawAddUndoBitmap();
  nv.refreshDrawing(true);
  nv.createOnLocationChange(); // the line below the image names the new label
}

async function endCorrection(keep) {
  const layer = edited;
  if (keep) {
    const voxels = nv.drawBitmap.slice();
    const packed = new Blob([voxels]).stream().pipeThrough(new CompressionStream("gzip"));
    layer.overlay = await ask("PUT", `/view/overlays/${layer.overlay.id}`, await new Response(packed).blob());
    layer.volume.img = voxels;
    layer.volume.setColormapLabel(lutOf(layer.overlay));
  }
  edited = null;
  nv.setDrawingEnabled(false);
  nv.closeDrawing();
  byId("edit").hidden = true;
  applyOpacity(layer);
  refreshPanel();
  byId("picture").focus();
  showMessage(keep ? "The changes are kept in the viewer. Save the label map to write it to a file." : "", true);
}

async function save(layer) {
  if (edited === layer) await endCorrection(true);
  const answer = await ask("POST", `/view/overlays/${layer.overlay.id}/save`);
  showMessage(`Saved: ${answer.path}`, true);
}

async function remove(layer) {
  if (edited === layer) await endCorrection(false);
  await ask("DELETE", `/view/overlays/${layer.overlay.id}`);
  layers = layers.filter((each) => each !== layer);
  nv.removeVolume(layer.volume);
  refreshPanel();
}

async function run() {
  const query = new URLSearchParams({
    model: byId("model").value, uncertainty: byId("uncertainty").checked, mirror: byId("mirror").checked,
  });
  job = await ask("POST", `/view/predict?${query}`);
  byId("run").disabled = true;
  byId("cancel").hidden = byId("progress").hidden = false;
  try {
    while (job && (job.state === "waiting" || job.state === "running")) {
      const { task = "waiting", done = 0, total = 1 } = job.progress ?? {};
      byId("progress").value = total > 1 ? done / total : 0;
      byId("job").textContent = total > 1 ? `${task}: ${done} of ${total}` : task;
      job = await ask("GET", `/jobs/${job.id}?wait=5`);
    }
    if (job === null) return;
    if (job.state !== "done") throw new Error(job.error);
    const added = await ask("POST", `/view/results/${job.id}`);
    for (const overlay of added.overlays) await addLayer(overlay);
    byId("job").textContent = [`done in ${job.seconds.toFixed(1)} s`, ...job.warnings].join(". ");
  } finally {
    byId("run").disabled = false;
    byId("cancel").hidden = byId("progress").hidden = true;
  }
}

async function cancel() {
  const cancelled = job;
  job = null;
  await ask("DELETE", `/jobs/${cancelled.id}`);
  byId("job").textContent = "cancelled";
}

async function compare() {
  if (edited) throw new Error("Keep or discard the changes first.");
  const query = new URLSearchParams({ first: byId("first").value, second: byId("second").value });
  const answer = await ask("POST", `/view/compare?${query}`);
  drawScores(answer.rows);
  await addLayer(answer.overlay);
}

function setView(name) {
  const [, , type] = views.find((view) => view[0] === name);
  document.querySelector(`#views input[value=${name}]`).checked = true;
  nv.setSliceType(type);
}

function showWindow() {
  const { cal_min: lower, cal_max: upper } = nv.volumes[0];
  byId("lower").value = Number(lower.toPrecision(4));
  byId("upper").value = Number(upper.toPrecision(4));
}

function setWindow(lower, upper) {
  if (!(lower < upper)) throw new Error("The window needs a lower limit below its upper limit.");
  nv.volumes[0].cal_min = lower;
  nv.volumes[0].cal_max = upper;
  nv.updateGLVolume();
  showWindow();
}

let pending = 0;
function showLocation(location) {
  const [x, y, z] = location.vox;
  const names = layers.filter((layer) => layer.visible).map((layer) => {
    const value = layer === edited
      ? nv.drawBitmap[x + state.shape[0] * (y + state.shape[1] * z)]
      : layer.volume.getValue(x, y, z);
    if (layer.overlay.kind === "map") return `${layer.overlay.title}: ${value.toFixed(2)}`;
    const label = layer.overlay.labels.find((each) => each.value === value);
    return value === 0 ? null : `${title(layers, layer)}: ${label?.name ?? `label ${value}`}`;
  }).filter((name) => name !== null);
  const intensity = location.values[0]?.value;
  // Rows of pictures are counted from the top.
  const parts = [state.is_volume ? `voxel ${x}, ${y}, ${z}` : `pixel ${x}, ${state.shape[1] - 1 - y}`];
  if (typeof intensity === "number") parts.push(`intensity ${Number(intensity.toPrecision(4))}`);
  clearTimeout(pending); // a screen reader gets the last position only
  pending = setTimeout(() => { byId("location").textContent = [...parts, ...names].join("; "); }, 80);
}

function onKey(event) {
  const moves = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1], PageDown: [0, 0, -1],
  };
  const step = (change) => { byId("size").value = Math.max(1, Number(byId("size").value) + change); choosePen(erasing); };
  const actions = {
    o: () => { const visible = !layers.some((each) => each.visible); for (const each of layers) { each.visible = visible; applyOpacity(each); } refreshPanel(); },
    b: () => edited && choosePen(false),
    e: () => edited && choosePen(true),
    " ": () => edited && drawAtCrosshair(),
    "[": () => step(-1),
    "]": () => step(1),
  };
  const view = state.is_volume ? views[Number(event.key) - 1] : undefined;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z" || !edited) return;
    nv.drawUndo();
  } else if (moves[event.key]) {
    nv.moveCrosshairInVox(...moves[event.key]);
    nv.drawScene();
  } else if (view) {
    setView(view[0]);
  } else if (actions[event.key.toLowerCase()]) {
    actions[event.key.toLowerCase()]();
  } else {
    return;
  }
  event.preventDefault();
  event.stopImmediatePropagation();
}

async function showChannel(number) {
  const crosshair = nv.volumes.length ? [...nv.scene.crosshairPos] : null;
  await nv.loadVolumes([{ url: `/view/image/${number}.nii`, name: "image.nii" }]);
  if (crosshair) nv.scene.crosshairPos = crosshair;
  const overlays = layers.length ? layers.map((layer) => layer.overlay) : state.overlays;
  layers = [];
  for (const overlay of overlays) await addLayer(overlay);
  showWindow();
  if (state.ready) nv.createOnLocationChange();
}

// NiiVue 0.69 leaves out the voxel at which a stroke ends.
function endStroke() {
  if (!edited || !nv.drawBitmap || Number.isNaN(nv.drawPenLocation[0])) return;
  nv.drawPt(...nv.drawPenLocation, nv.opts.penValue);
  nv.refreshDrawing(true);
}

function showMirroring() {
  const model = state.models.find((each) => each.name === byId("model").value);
  byId("mirror").disabled = !model?.can_mirror;
  byId("mirror").checked = Boolean(model?.mirrors);
}

function connect() {
  byId("model").addEventListener("change", showMirroring);
  for (const kind of ["mouseup", "mouseleave", "touchend"]) byId("picture").addEventListener(kind, endStroke, { capture: true });
  byId("picture").addEventListener("keydown", onKey, { capture: true });
  byId("new").addEventListener("click", guarded(async () => correct(await addLayer(await ask("POST", "/view/overlays")))));
  byId("auto").addEventListener("click", guarded(() => setWindow(nv.volumes[0].robust_min, nv.volumes[0].robust_max)));
  for (const id of ["lower", "upper"]) {
    byId(id).addEventListener("change", guarded(() => setWindow(Number(byId("lower").value), Number(byId("upper").value))));
  }
  byId("brush").addEventListener("click", () => choosePen(false));
  byId("eraser").addEventListener("click", () => choosePen(true));
  byId("label").addEventListener("change", () => choosePen(false));
  byId("size").addEventListener("change", () => choosePen(erasing));
  byId("undo").addEventListener("click", () => nv.drawUndo());
  byId("keep").addEventListener("click", guarded(() => endCorrection(true)));
  byId("discard").addEventListener("click", guarded(() => endCorrection(false)));
  byId("run").addEventListener("click", guarded(run));
  byId("cancel").addEventListener("click", guarded(cancel));
  byId("compare").addEventListener("click", guarded(compare));
  byId("channel").addEventListener("change", guarded(async () => {
    if (edited) throw new Error("Keep or discard the changes first.");
    await showChannel(Number(byId("channel").value));
  }));
  nv.onLocationChange = showLocation;
  window.addEventListener("beforeunload", (event) => { if (edited) event.preventDefault(); });
  nv.onIntensityChange = showWindow;
}

// Without a graphics card, the 3D view of a large volume takes seconds. It is drawn on request only.
function isSlow() {
  const names = nv.gl.getExtension("WEBGL_debug_renderer_info");
  const renderer = names ? nv.gl.getParameter(names.UNMASKED_RENDERER_WEBGL) : "";
  return /swiftshader|llvmpipe|software/i.test(renderer) && state.shape.reduce((a, b) => a * b) > 2 ** 23;
}

async function begin() {
  state = await ask("GET", "/view/state");
  byId("title").textContent = state.image;
  document.title = `${state.image} - scanseg viewer`;
  const shape = state.is_volume ? state.shape : state.shape.slice(0, 2);
  byId("shape").textContent = `${shape.join(" x ")} ${state.is_volume ? "voxels" : "pixels"}`;
  for (const [name, text] of state.is_volume ? views : []) {
    const input = element("input", { type: "radio", name: "view", value: name, checked: name === "planes" });
    input.addEventListener("change", () => setView(name));
    byId("views").append(element("label", {}, input, text));
  }
  fillSelect(byId("channel"), state.channels.map((name, number) => [String(number), name]), 0);
  byId("channel-row").hidden = state.channels.length < 2;
  byId("window-row").hidden = state.channels[0] === "colours";
  byId("view-section").hidden = !state.is_volume && state.channels[0] === "colours";
  nv.opts.isOrientationTextVisible = state.is_volume;
  fillSelect(byId("model"), state.models.map((model) => [model.name, model.name]), 0);
  byId("model-section").hidden = state.models.length === 0;
  showMirroring();
  await nv.attachToCanvas(byId("picture"));
  if (!nv.gl) throw new Error("This browser has no WebGL 2. Use a recent Firefox, Chrome, Edge or Safari.");
  if (isSlow()) nv.opts.multiplanarShowRender = SHOW_RENDER.NEVER;
  keepImageTexture(nv);
  drawInBoxes(nv);
  connect();
  nv.setSliceType(state.is_volume ? SLICE_TYPE.MULTIPLANAR : SLICE_TYPE.AXIAL);
  await showChannel(0);
  state.ready = true;
  nv.createOnLocationChange();
  document.body.dataset.ready = "true";
}

window.viewer = { nv, layers: () => layers, setView }; // for tests and the console
guarded(begin)();
