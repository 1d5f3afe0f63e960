// An image with two masks on a canvas: the reference in green, a prediction in magenta, both in white.
"use strict";

window.voxlossPicture = function (canvas) {
  const context = canvas.getContext("2d");
  const view = { cross: null, centre: null, zoom: 1 };
  const alpha = { reference: 0.6, prediction: 0.6 };
  let shown = null; // the image and its masks
  let overlay = null; // the masks of the chosen class, as a canvas of the image's size
  let wanted = 1; // the chosen class
  let dragged = null;

  async function decoded(base64) {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    return image;
  }

  function sheet(width, height) {
    const element = document.createElement("canvas");
    element.width = width;
    element.height = height;
    return element;
  }

  async function classIndices(base64) {
    const image = await decoded(base64);
    const page = sheet(image.width, image.height).getContext("2d", { willReadFrequently: true });
    page.drawImage(image, 0, 0);
    return page.getImageData(0, 0, image.width, image.height).data; // four bytes per pixel, of which three are the class
  }

  function paint() {
    const { width, height } = shown.image;
    overlay = sheet(width, height);
    const page = overlay.getContext("2d");
    const pixels = page.createImageData(width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const reference = alpha.reference > 0 && shown.reference[at] === wanted;
      const prediction = alpha.prediction > 0 && shown.prediction !== null && shown.prediction[at] === wanted;
      const share = Math.max(reference ? alpha.reference : 0, prediction ? alpha.prediction : 0);
      if (!share) continue;
      pixels.data[at] = prediction ? 255 : 0;
      pixels.data[at + 1] = reference ? 255 : 0;
      pixels.data[at + 2] = prediction ? 255 : 0;
      pixels.data[at + 3] = Math.round(255 * share);
    }
    page.putImageData(pixels, 0, 0);
  }

  /** Screen pixels per pixel of the image along both axes, and where the image's first pixel is. */
  function placement() {
    const [wide, high] = shown.pixel;
    const { width, height } = shown.image;
    const scale = view.zoom * Math.min(canvas.width / (width * wide), canvas.height / (height * high));
    const [x, y] = view.centre ?? [width / 2, height / 2];
    const place = (extent, size, middle) =>
      size <= extent ? (extent - size) / 2 : Math.min(0, Math.max(extent - size, extent / 2 - middle));
    return {
      x: scale * wide,
      y: scale * high,
      left: place(canvas.width, width * scale * wide, x * scale * wide),
      top: place(canvas.height, height * scale * high, y * scale * high),
    };
  }

  function draw() {
    if (!shown) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    const at = placement();
    const { width, height } = shown.image;
    context.imageSmoothingEnabled = Math.min(at.x, at.y) < 1;
    for (const layer of [shown.image, overlay]) {
      context.drawImage(layer, at.left, at.top, width * at.x, height * at.y);
    }
    if (!view.cross) return;
    const [x, y] = [at.left + (view.cross[0] + 0.5) * at.x, at.top + (view.cross[1] + 0.5) * at.y];
    const reach = 14 * ratio;
    context.strokeStyle = "rgb(255 204 0 / 0.9)";
    context.lineWidth = ratio;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + (dx * reach) / 3, y + (dy * reach) / 3);
      context.lineTo(x + dx * reach, y + dy * reach);
    }
    context.stroke();
  }

  function pixelAt(event) {
    const ratio = window.devicePixelRatio || 1;
    const at = placement();
    return [(event.offsetX * ratio - at.left) / at.x, (event.offsetY * ratio - at.top) / at.y];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!shown) return;
    dragged = { from: pixelAt(event), moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const [x, y] = pixelAt(event);
    const [dx, dy] = [dragged.from[0] - x, dragged.from[1] - y];
    const at = placement();
    if (!dragged.moved && Math.hypot(dx * at.x, dy * at.y) < 4) return;
    dragged.moved = true;
    const [middleX, middleY] = view.centre ?? [shown.image.width / 2, shown.image.height / 2];
    picture.moved({ centre: [middleX + dx, middleY + dy] });
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragged && !dragged.moved) {
      const [x, y] = pixelAt(event).map(Math.floor);
      if (x >= 0 && y >= 0 && x < shown.image.width && y < shown.image.height) {
        picture.moved({ cross: [x, y], centre: [x, y] });
      }
    }
    dragged = null;
  });
  new ResizeObserver(draw).observe(canvas);

  const picture = {
    view,
    /** Called with what the user changes of the view; the viewer passes it on to all pictures of the case. */
    moved: (change) => picture.look(change),
    look(change) {
      Object.assign(view, change);
      draw();
    },
    async read(content, prediction) {
      const [image, reference, predicted] = await Promise.all([
        decoded(content.image),
        classIndices(content.reference),
        prediction ? classIndices(prediction) : null,
      ]);
      return { image, reference, prediction: predicted, pixel: content.pixel };
    },
    /** Show what `read` gave; another case is seen as a whole. */
    show(content, chosen, another) {
      shown = content;
      if (another) Object.assign(view, { cross: null, centre: null });
      picture.choose(chosen);
    },
    choose(chosen) {
      wanted = chosen;
      if (!shown) return;
      paint();
      draw();
    },
    blend(reference, prediction) {
      Object.assign(alpha, { reference, prediction });
      picture.choose(wanted);
    },
  };
  return picture;
};
