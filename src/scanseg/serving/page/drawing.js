// Drawing on large volumes. After each movement of the mouse, NiiVue 0.69 sends the whole drawing to the graphics
// memory, for each undo step it packs the whole drawing, and after each change of an overlay it computes the textures of
// the image again. Here, a stroke costs its box, and the image is computed only if it has changed.
const MOST_STEPS = 100;

// Compute only the textures of the overlays if the image, its window and its colours are the same.
export function keepImageTexture(nv) {
  const updateAll = nv.updateGLVolume.bind(nv);
  let shown = [];
  nv.updateGLVolume = () => {
    const [image, ...overlays] = nv.volumes;
    const state = image ? [image, image.img, image.cal_min, image.cal_max, image.colormap, image.opacity] : [];
    const isSame = state.length > 0 && state.every((value, index) => value === shown[index]);
    shown = state;
    nv.gl.deleteTexture(nv.overlayTexture); // NiiVue makes a new one
    if (!isSame || overlays.length === 0 || nv.opts.is2DSliceShader) {
      updateAll();
    } else if (overlays.every((overlay) => overlay.opacity === 0)) {
      nv.overlayTexture = nv.overlayTextureID = nv.rgbaTex(null, nv.gl.TEXTURE2, [2, 2, 2, 2], true);
      nv.drawScene();
    } else {
      overlays.forEach((overlay, index) => nv.refreshLayers(overlay, index + 1));
      nv.drawScene();
    }
  };
}

// Upload and undo the box of a stroke only.
export function drawInBoxes(nv) {
  const uploadAll = nv.refreshDrawing.bind(nv);
  const drawPoint = nv.drawPt.bind(nv);
  const drawLine = nv.drawPenLine.bind(nv);
  let before = null; // the drawing at the last undo step
  let steps = []; // undo steps: {box, voxels}
  let stroke = null; // box since the last undo step
  let changed = null; // box that the graphics memory lacks

  function note(...points) {
    const radius = Math.floor(nv.opts.penSize / 2);
    const box = boxOf(points, radius, nv.back.dims.slice(1, 4));
    stroke = join(stroke, box);
    changed = join(changed, box);
  }

  nv.drawPt = (x, y, z, value, bitmap = null) => {
    drawPoint(x, y, z, value, bitmap);
    if (bitmap === null) note([x, y, z]);
  };
  nv.drawPenLine = (start, end, value) => {
    drawLine(start, end, value);
    note(start, end);
  };
  nv.drawClearAllUndoBitmaps = () => {
    before = stroke = changed = null;
    steps = [];
  };
  nv.drawAddUndoBitmap = () => {
    if (!nv.drawBitmap) return;
    if (before === null) {
      before = nv.drawBitmap.slice();
    } else if (stroke !== null) {
      steps.push({ box: stroke, voxels: copy(before, stroke, nv.back.dims) });
      if (steps.length > MOST_STEPS) steps.shift();
      paste(before, stroke, copy(nv.drawBitmap, stroke, nv.back.dims), nv.back.dims);
    }
    stroke = null;
  };
  nv.drawUndo = () => {
    const step = steps.pop();
    if (step === undefined) return;
    for (const bitmap of [nv.drawBitmap, before]) paste(bitmap, step.box, step.voxels, nv.back.dims);
    changed = join(changed, step.box);
    nv.refreshDrawing(true);
  };
  nv.refreshDrawing = (draws = true, growing = false) => {
    const box = changed;
    changed = null;
    if (box === null || growing || nv.opts.is2DSliceShader || !nv.drawBitmap) {
      uploadAll(draws, growing);
      return;
    }
    const gl = nv.gl;
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_3D, nv.drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const [[x0, x1], [y0, y1], [z0, z1]] = box;
    const voxels = copy(nv.drawBitmap, box, nv.back.dims);
    gl.texSubImage3D(
      gl.TEXTURE_3D, 0, x0, y0, z0, x1 - x0, y1 - y0, z1 - z0, gl.RED, gl.UNSIGNED_BYTE, voxels,
    );
    if (draws) nv.drawScene();
  };
}

// Return the box of points with a margin, as [first, last + 1] for each axis.
function boxOf(points, margin, shape) {
  return shape.map((size, axis) => {
    const inside = points.map((point) => Math.min(Math.max(point[axis], 0), size - 1));
    return [Math.max(Math.min(...inside) - margin, 0), Math.min(Math.max(...inside) + margin + 1, size)];
  });
}

function join(first, second) {
  if (first === null) return second;
  return first.map(([start, end], axis) => [Math.min(start, second[axis][0]), Math.max(end, second[axis][1])]);
}

// Call a function with the place of each row of a box: in the volume, and in the box.
function eachRow([[x0, x1], [y0, y1], [z0, z1]], dims, visit) {
  let place = 0;
  for (let z = z0; z < z1; z += 1) {
    for (let y = y0; y < y1; y += 1) {
      visit(x0 + dims[1] * (y + dims[2] * z), place, x1 - x0);
      place += x1 - x0;
    }
  }
}

function copy(bitmap, box, dims) {
  const voxels = new Uint8Array(box.reduce((count, [start, end]) => count * (end - start), 1));
  eachRow(box, dims, (from, to, count) => voxels.set(bitmap.subarray(from, from + count), to));
  return voxels;
}

function paste(bitmap, box, voxels, dims) {
  eachRow(box, dims, (to, from, count) => bitmap.set(voxels.subarray(from, from + count), to));
}
