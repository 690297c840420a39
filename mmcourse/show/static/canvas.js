// A small drawing board. Each finished stroke sends the picture to Python as PNG bytes (a message).
function render({ model, el }) {
  const side = 320, strokes = [];
  let colour = model.get("ink"), width = 8, current = null;

  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  canvas.setAttribute("aria-label", "drawing board");
  canvas.style.cssText = "border:1px solid #888;touch-action:none;cursor:crosshair;display:block";
  const pen = canvas.getContext("2d");

  function paint() {
    pen.fillStyle = model.get("background");
    pen.fillRect(0, 0, side, side);
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {
      pen.strokeStyle = pen.fillStyle = stroke.colour;
      pen.lineWidth = stroke.width;
      pen.beginPath();
      stroke.points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      if (stroke.points.length === 1) pen.lineTo(stroke.points[0][0] + 0.1, stroke.points[0][1]);
      pen.stroke();
    }
  }
  function send() {
    canvas.toBlob(async (blob) => {
      model.send({}, undefined, [await blob.arrayBuffer()]);
    }, "image/png");
  }
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * side) / box.width, ((event.clientY - box.top) * side) / box.height];
  };
  canvas.onpointerdown = (event) => {
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is already gone */ }
    current = { colour, width, points: [place(event)] };
    strokes.push(current);
    paint();
  };
  canvas.onpointermove = (event) => {
    if (!current) return;
    current.points.push(place(event));
    paint();
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (current) send();
    current = null;
  };

  const bar = document.createElement("div");
  bar.style.cssText = "display:flex;flex-wrap:wrap;gap:4px;margin:0 0 6px 0;max-width:340px";
  function button(label, title, action, background) {
    const b = document.createElement("button");
    b.textContent = label;
    b.title = title;
    b.setAttribute("aria-label", title);
    b.style.cssText = `min-width:26px;height:26px;cursor:pointer;border:1px solid #888;background:${background || "#fff"};color:#111`;
    b.onclick = action;
    bar.append(b);
    return b;
  }
  const pens = Object.entries(model.get("inks")).map(([name, value]) => {
    const b = button("", `draw in ${name}`, () => choose(b, value), value);
    return [b, value];
  });
  function choose(chosen, value) {
    colour = value;
    for (const [b] of pens) {
      b.style.outline = b === chosen ? "3px solid var(--jp-brand-color1, #1976d2)" : "none";      // seen on light and dark pages
      b.style.outlineOffset = "1px";
      b.setAttribute("aria-pressed", b === chosen);
    }
  }
  choose((pens.find(([, value]) => value === colour) || pens[0])[0], colour);
  const sizes = [["thin", 3], ["thick", 8], ["fat", 22]];
  const widths = sizes.map(([name, w]) => {
    const b = button(name, `${name} pen`, () => { width = w; mark(); });
    return [b, w];
  });
  const mark = () => widths.forEach(([b, w]) => (b.style.fontWeight = w === width ? "bold" : "normal"));
  mark();
  button("undo", "take the last stroke back", () => { strokes.pop(); paint(); strokes.length ? send() : model.send({}, undefined, []); });
  button("clear", "empty the board", () => { strokes.length = 0; paint(); model.send({}, undefined, []); });

  model.on("change:background", () => { paint(); if (strokes.length) send(); });
  paint();
  el.append(bar, canvas);
}
export default { render };
