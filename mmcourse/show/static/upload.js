// Choose a file. It goes to Python as a message; what is too large for that is made smaller here first: pictures to 1,024 pixels,
// sounds to one channel of 16 kHz. (A message of more than 10 MiB would end the connection without a word.)
const LARGE = 3e6, MOST = 9e6, PIXELS = 1024, RATE = 16000, SECONDS = 240;

async function smallerPicture(file) {
  const picture = await createImageBitmap(file), times = Math.min(1, PIXELS / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * times));
  canvas.height = Math.max(1, Math.round(picture.height * times));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return [await blob.arrayBuffer(), `${picture.width} x ${picture.height} pixels, sent as ${canvas.width} x ${canvas.height}`];
}

async function smallerSound(file) {
  const context = new OfflineAudioContext(1, 1, RATE);                   // decodes to its own rate
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const channels = [...Array(sound.numberOfChannels).keys()].map((i) => sound.getChannelData(i));
  const power = channels.map((c) => { let sum = 0; for (const x of c) sum += x * x; return sum; });
  const loudest = channels[power.indexOf(Math.max(...power))];           // a mean could cancel
  const part = loudest.subarray(0, SECONDS * RATE), cut = part.length < loudest.length;
  return [wavFile(part, RATE), `${sound.duration.toFixed(1)} s` + (cut ? `, the first ${SECONDS / 60} minutes sent` : "")];
}

function render({ model, el }) {
  const picture = model.get("kind") === "picture";
  const button = document.createElement("button"), input = document.createElement("input"), said = document.createElement("span");
  const preview = document.createElement(picture ? "img" : "audio");
  button.className = "jupyter-button widget-button widget-upload";
  button.style.cssText = "width:auto;padding:0 12px;margin-right:8px;cursor:pointer";
  button.textContent = `choose a ${model.get("kind")}`;
  input.type = "file";
  input.accept = picture ? "image/*" : "audio/*,.wav,.flac,.ogg,.mp3";
  input.style.display = "none";
  input.setAttribute("aria-label", button.textContent);
  said.setAttribute("role", "status");
  preview.style.cssText = "display:none;margin-top:6px;max-width:220px;max-height:160px";
  if (!picture) preview.controls = true;
  const tell = (sentence) => { said.textContent = sentence; };
  const size = (n) => (n < 1e6 ? `${Math.max(1, Math.round(n / 1e3))} kB` : `${(n / 1e6).toFixed(1)} MB`);

  button.onclick = () => input.click();
  input.onchange = async () => {
    const file = input.files[0];
    if (!file) return;
    input.value = "";                                                    // the same file may be chosen again
    model.send({ name: "" }, undefined, []);                             // until the new one is there, there is none
    tell(`${file.name}: reading ...`);
    let bytes, note = size(file.size);
    if (file.size > LARGE) {
      try {
        const [smaller, what] = await (picture ? smallerPicture(file) : smallerSound(file));
        [bytes, note] = [smaller, `${note}, ${what}`];
      } catch { /* what the browser cannot read is sent as it is, for Python to say what is wrong */ }
    }
    if (!bytes) bytes = await file.arrayBuffer();
    if (bytes.byteLength > MOST) {
      preview.style.display = "none";
      return tell(`${file.name} has ${size(file.size)}, too much to be sent, and this browser cannot read it: choose a smaller one.`);
    }
    model.send({ name: file.name }, undefined, [bytes]);
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(picture || file.size <= LARGE ? file : new Blob([bytes], { type: "audio/wav" }));
    preview.alt = file.name;
    preview.onerror = () => { preview.style.display = "none"; };
    preview.style.display = "block";
    tell(`${file.name} (${note})`);
  };
  el.append(button, input, said, preview);
}
export default { render };
