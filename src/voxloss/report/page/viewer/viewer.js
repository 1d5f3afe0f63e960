// A case beside itself: its image with the reference and the predictions of two losses, drawn by NiiVue; of a study of
// images by pictures.js.
"use strict";

(function () {
  const index = JSON.parse(document.getElementById("viewer-index").textContent);
  const dialog = document.getElementById("viewer");
  const message = document.getElementById("viewer-message");
  const classes = document.getElementById("viewer-class");
  const plane = document.getElementById("viewer-plane");
  const opacity = {
    1: document.getElementById("viewer-reference"),
    2: document.getElementById("viewer-prediction"),
  };
  if (!index.planar) opacity[3] = document.getElementById("viewer-marks");
  const INVENTED = 128; // added to the class of an invented lesion in a map of marks
  const threshold = { // of volumes alone, as the marks and the jumps from lesion to lesion
    label: document.getElementById("viewer-threshold-label"),
    on: document.getElementById("viewer-threshold-on"),
    slider: document.getElementById("viewer-threshold"),
    output: document.querySelector("#viewer-threshold-label output"),
  };
  const panes = Array.from(dialog.querySelectorAll(".pane"), (element) => ({
    losses: element.querySelector("select"),
    score: element.querySelector(".score"),
    error: element.querySelector(".error"),
    lesion: element.querySelector(".lesion"),
    jumps: element.querySelectorAll("[data-lesion]"),
    canvas: element.querySelector("canvas"),
    niivue: null,
    marks: null, // of the losses' lesions, by voxel
    probability: null, // of the primary class, in steps of 1/255
    place: -1, // of the lesion last jumped to
  }));
  const scripts = new Map();
  const cases = new Map();
  // Which mean nothing before there is a volume.
  const controls = [classes, plane, ...Object.values(opacity), ...panes.map((pane) => pane.losses)];
  const CUT = "Cropped around the structures; large volumes are shown at a lower resolution.";
  let started = null;
  let current = null;
  let request = 0;

  // Called by the scripts in cases/.
  window.voxlossCase = (file, content) => cases.set(file, content);

  function load(source) {
    if (!scripts.has(source)) {
      const loading = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = source;
        script.onload = resolve;
        script.onerror = () => {
          scripts.delete(source);
          reject(new Error(`${source} cannot be loaded`));
        };
        document.head.append(script);
      });
      scripts.set(source, loading);
    }
    return scripts.get(source);
  }

  function options(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  }

  async function begin() {
    if (index.planar) await beginPictures();
    else await beginVolumes();
    for (const control of controls) control.disabled = false;
  }

  async function beginPictures() {
    await load("viewer/pictures.js");
    const pictures = panes.map((pane) => (pane.picture = window.voxlossPicture(pane.canvas)));
    for (const picture of pictures) picture.moved = (view) => pictures.forEach((other) => other.look(view));
  }

  async function beginVolumes() {
    await load("viewer/niivue.umd.js");
    for (const pane of panes) {
      const niivue = new window.niivue.Niivue({
        backColor: [0, 0, 0, 1],
        crosshairColor: [1, 0.8, 0, 0.8],
        crosshairWidth: 0.3,
        crosshairWidthUnit: "percent",
        dragAndDropEnabled: false,
        isNearestInterpolation: true,
        isRadiologicalConvention: true,
        loadingText: "",
        logLevel: "error",
        show3Dcrosshair: true,
      });
      niivue.addColormap("reference", { R: [0, 0], G: [0, 255], B: [0, 0], A: [0, 255], I: [0, 255] });
      niivue.addColormap("prediction", { R: [0, 255], G: [0, 0], B: [0, 255], A: [0, 255], I: [0, 255] });
      niivue.addColormap("marks", { R: [0, 255, 0], G: [0, 150, 200], B: [0, 0, 255], A: [0, 255, 255], I: [0, 128, 255] });
      await niivue.attachToCanvas(pane.canvas);
      niivue.setAdditiveBlend(true);
      pane.niivue = niivue;
    }
    panes[0].niivue.broadcastTo([panes[1].niivue], { "2d": true, "3d": true });
    panes[1].niivue.broadcastTo([panes[0].niivue], { "2d": true, "3d": true });
  }

  /** Once, however many cases are asked for meanwhile; tried again after a failure. */
  function start() {
    started ??= begin().catch((error) => {
      started = null;
      throw error;
    });
    return started;
  }

  /** Whether the prediction of a pane is drawn by the threshold, not by the largest probability. */
  function byThreshold(pane) {
    return !index.planar && threshold.on.checked && pane.probability !== null && Number(classes.value) === index.primary;
  }

  /** Leave the chosen class alone in a volume of class indices; lesions that are marked have the marks' colours. */
  function choose(volume, pane) {
    if (!volume.labels) volume.labels = volume.img.slice();
    const { labels } = volume;
    const wanted = Number(classes.value);
    const tuned = byThreshold(pane);
    const marks = tuned ? null : pane.marks; // which are those of the largest probability
    const least = Number(threshold.slider.value);
    const shown = new Uint8Array(labels.length);
    const kind = volume.name.split(".")[0];
    for (let voxel = 0; voxel < labels.length; voxel += 1) {
      if (kind === "marks") {
        if (!tuned) shown[voxel] = labels[voxel] === wanted ? 1 : labels[voxel] === wanted + INVENTED ? 2 : 0;
      } else if (kind === "prediction" && tuned) {
        shown[voxel] = pane.probability[voxel] >= least ? 1 : 0;
      } else if (labels[voxel] === wanted) {
        shown[voxel] = marks && marks[voxel] === (kind === "reference" ? wanted : wanted + INVENTED) ? 0 : 1;
      }
    }
    volume.img = shown;
    volume.cal_min = 0;
    volume.cal_max = kind === "marks" ? 2 : 1;
  }

  /** Draw all volumes of a pane again, of another class or at another threshold. */
  function again(pane) {
    for (const volume of pane.niivue.volumes.slice(1)) choose(volume, pane);
    pane.niivue.updateGLVolume();
    describe(pane);
  }

  async function drawPicture(pane) {
    const mine = (pane.drawing = Symbol("drawing"));
    const shown = current;
    const content = cases.get(index.files[shown]);
    const picture = await pane.picture.read(content, content.predictions[pane.losses.value]);
    if (mine !== pane.drawing || shown !== current) return;
    pane.picture.show(picture, Number(classes.value), pane.drawn !== shown);
    setOpacities(pane);
    pane.drawn = shown;
    describe(pane);
  }

  function setOpacities(pane) {
    pane.picture.blend(Number(opacity[1].value), Number(opacity[2].value));
  }

  /** Put the current case into a pane; whatever was asked for before and comes late is left. */
  async function draw(pane) {
    if (index.planar) return drawPicture(pane);
    const { niivue } = pane;
    const mine = (pane.drawing = Symbol("drawing"));
    const shown = current;
    const content = cases.get(index.files[shown]);
    const prediction = content.predictions[pane.losses.value];
    const wanted = [
      ["image", content.image, "gray", 1],
      ["reference", content.reference, "reference", Number(opacity[1].value)],
    ];
    const marked = (content.marks || {})[pane.losses.value];
    if (prediction) wanted.push(["prediction", prediction, "prediction", Number(opacity[2].value)]);
    if (prediction && marked) wanted.push(["marks", marked, "marks", Number(opacity[3].value)]);
    const volumes = [];
    for (const [name, base64, colormap, alpha] of wanted) {
      const volume = await window.niivue.NVImage.loadFromBase64({
        base64, name: `${name}.nii.gz`, colormap, opacity: alpha, cal_min: 0, cal_max: name === "image" ? 255 : 1,
      });
      volumes.push(volume);
    }
    const kept = (content.probabilities || {})[pane.losses.value];
    const probability = kept
      ? (await window.niivue.NVImage.loadFromBase64({ base64: kept, name: "probability.nii.gz" })).img
      : null;
    if (mine !== pane.drawing || shown !== current) return;
    pane.probability = probability;
    pane.marks = volumes.length > 3 ? volumes[3].img.slice() : null;
    pane.place = -1;
    for (const volume of volumes.slice(1)) choose(volume, pane);
    // The cross-hair stays where it is when another loss of the same case is taken.
    const before = niivue.volumes.length && pane.drawn === shown ? niivue.frac2mm(niivue.scene.crosshairPos) : null;
    for (const volume of niivue.volumes.slice()) niivue.removeVolume(volume);
    for (const volume of volumes) niivue.addVolume(volume);
    niivue.setSliceType(Number(plane.value));
    if (before) niivue.scene.crosshairPos = niivue.mm2frac(before.slice(0, 3));
    pane.drawn = shown;
    niivue.drawScene();
    describe(pane);
  }

  function describe(pane) {
    const key = pane.losses.value;
    const value = ((index.dice[current] || {})[key] || {})[classes.value];
    pane.score.textContent = value === undefined ? "DSC undefined" : `DSC ${value.toFixed(3)}`;
    if (byThreshold(pane)) pane.score.textContent = tunedScore(pane);
    const content = cases.get(index.files[current]);
    const error = (content.errors[key] || {})[classes.value];
    pane.error.disabled = !error;
    pane.error.textContent = error ? `largest ${error.kind}: ${Number((error.ml ?? error.size).toPrecision(3))} ${index.unit}` : "no error";
    pane.error.hidden = !content.predictions[key];
    if (!content.predictions[key]) pane.score.textContent = "no prediction";
    if (index.planar) return;
    const lesions = lesionsOf(pane);
    pane.jumps.forEach((button) => (button.disabled = lesions.length === 0));
    pane.lesion.textContent = lesions.length === 1 ? "1 lesion" : `${lesions.length} lesions`;
    if (pane.place >= lesions.length) pane.place = -1;
    if (pane.place >= 0) {
      const { kind, ml } = lesions[pane.place];
      pane.lesion.textContent = `lesion ${pane.place + 1} of ${lesions.length}: ${kind}, ${Number(ml.toPrecision(2))} ml`;
    }
    const any = panes.some((other) => other.probability !== null);
    threshold.label.hidden = !(any && Number(classes.value) === index.primary);
  }

  /** The lesions of the chosen class for the loss of a pane, missed and invented ones first. */
  function lesionsOf(pane) {
    const content = cases.get(index.files[current]);
    return ((content.lesions || {})[pane.losses.value] || {})[classes.value] || [];
  }

  /** DSC at the threshold, of the voxels that are shown: of a cropped or thinned case it is about that of the case. */
  function tunedScore(pane) {
    const reference = pane.niivue.volumes[1].labels;
    const least = Number(threshold.slider.value);
    let both = 0;
    let total = 0;
    for (let voxel = 0; voxel < reference.length; voxel += 1) {
      const there = reference[voxel] === index.primary;
      const predicted = pane.probability[voxel] >= least;
      total += there + predicted;
      if (there && predicted) both += 1;
    }
    const about = cases.get(index.files[current]).cut ? "about " : "";
    return total ? `DSC ${about}${((2 * both) / total).toFixed(3)}` : "DSC undefined";
  }

  function visit(pane, by) {
    const lesions = lesionsOf(pane);
    pane.place = pane.place < 0 && by < 0 ? lesions.length - 1 : (pane.place + by + lesions.length) % lesions.length;
    moveTo(lesions[pane.place].mm);
    describe(pane);
  }

  function moveTo(mm) {
    for (const { niivue } of panes) {
      niivue.scene.crosshairPos = niivue.mm2frac(mm);
      niivue.updateGLVolume();
    }
  }

  function jump(pane) {
    const content = cases.get(index.files[current]);
    const error = content.errors[pane.losses.value][classes.value];
    if (index.planar) {
      pane.picture.moved({ cross: error.pixel, centre: error.pixel });
      return;
    }
    moveTo(error.mm);
  }

  async function open(name) {
    const mine = ++request;
    current = name;
    document.getElementById("viewer-title").textContent = index.seed === null ? name : `${name}, seed ${index.seed}`;
    message.textContent = "loading …";
    if (!dialog.open) dialog.showModal();
    try {
      await start();
      await load(`viewer/cases/${index.files[name]}`);
      for (const pane of panes) {
        if (mine !== request) return;
        await draw(pane);
      }
      if (mine !== request) return;
      const first = panes.find((pane) => !pane.error.disabled);
      if (first) jump(first);
      const cut = cases.get(index.files[name]).cut;
      message.textContent = "";
      if (cut) message.textContent = index.planar ? "Shown at a lower resolution." : CUT;
      dialog.dataset.shown = name;
    } catch (error) {
      if (mine !== request) return;
      const what = index.planar ? "The images cannot be shown" : "The volumes cannot be shown (WebGL 2 is needed)";
      message.textContent = `${what}: ${error.message}`;
    }
  }

  function step(by) {
    const names = Array.from(document.querySelectorAll("button.open"), (button) => button.dataset.case);
    const next = names[(names.indexOf(current) + by + names.length) % names.length];
    if (next !== undefined) open(next);
  }

  const losses = index.losses.map((loss) => [loss.key, loss.name]);
  options(classes, index.classes.map((name, place) => [String(place + 1), name]));
  classes.value = String(index.primary);
  panes.forEach((pane, place) => {
    options(pane.losses, losses);
    pane.losses.selectedIndex = place === 0 ? 0 : losses.length - 1;
    pane.losses.addEventListener("change", () => draw(pane));
    pane.error.addEventListener("click", () => jump(pane));
    for (const button of pane.jumps) {
      button.addEventListener("click", () => visit(pane, Number(button.dataset.lesion)));
    }
  });
  classes.addEventListener("change", () => {
    for (const pane of panes) {
      if (index.planar) {
        pane.picture.choose(Number(classes.value));
        describe(pane);
        continue;
      }
      pane.place = -1;
      again(pane);
    }
  });
  function thresholdChanged() {
    threshold.slider.disabled = !threshold.on.checked;
    threshold.output.textContent = threshold.on.checked ? `≥ ${(threshold.slider.value / 255).toFixed(3)}` : "largest";
    panes.forEach(again);
  }
  if (!index.planar) {
    threshold.on.addEventListener("change", thresholdChanged);
    threshold.slider.addEventListener("input", thresholdChanged);
  }
  plane.addEventListener("change", () => {
    if (index.planar) panes[0].picture.moved({ zoom: Number(plane.value) });
    else panes.forEach((pane) => pane.niivue.setSliceType(Number(plane.value)));
  });
  for (const [place, slider] of Object.entries(opacity)) {
    slider.addEventListener("input", () => {
      if (index.planar) {
        panes.forEach(setOpacities);
        return;
      }
      for (const { niivue } of panes) {
        if (niivue.volumes[place]) niivue.setOpacity(Number(place), Number(slider.value));
      }
    });
  }
  for (const button of document.querySelectorAll("button.open")) {
    button.addEventListener("click", () => open(button.dataset.case));
  }
  for (const control of controls) control.disabled = true;
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  document.getElementById("viewer-close").addEventListener("click", () => dialog.close());
  window.voxlossViewer = { panes, open };
})();
