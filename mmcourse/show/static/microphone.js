// Record a word or a few. What was said goes to Python as a 16-bit mono WAV file (a message).
function render({ model, el }) {
  const button = document.createElement("button"), said = document.createElement("span"), player = document.createElement("audio");
  button.style.cssText = "padding:4px 12px;margin-right:8px;cursor:pointer";
  player.controls = true;
  player.style.cssText = "display:none;margin-top:6px";
  button.textContent = "● record";
  let recorder = null, timer = null, closed = false;
  const tell = (sentence) => { said.textContent = sentence; };
  function rest() {
    clearTimeout(timer);
    recorder = null;
    button.disabled = false;
    button.textContent = "● record again";
  }
  async function start() {
    button.disabled = true;                               // until the browser has asked for the microphone
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      rest();
      return tell("This page may not use a microphone (browsers allow it on localhost and on https pages): upload a file instead.");
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      rest();
      return tell(`The browser gave no microphone (${error.name}): allow it for this page, or upload a file instead.`);
    }
    if (closed) return stream.getTracks().forEach((track) => track.stop());
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = async () => {
      stream.getTracks().forEach((track) => track.stop());
      rest();
      if (closed) return;
      try {
        const context = new AudioContext();
        const sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
        const samples = sound.getChannelData(0), file = wavFile(samples, sound.sampleRate);
        await context.close();
        const loudest = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        model.send({}, undefined, [file.buffer]);
        URL.revokeObjectURL(player.src);
        player.src = URL.createObjectURL(new Blob([file], { type: "audio/wav" }));
        player.style.display = "block";
        tell(loudest < 0.01 ? "Almost silent: is the right microphone chosen?" : `${sound.duration.toFixed(1)} s recorded.`);
      } catch (error) {
        tell(`The recording could not be read (${error.name}): record again, or upload a file.`);
      }
    };
    recorder.start();
    button.disabled = false;
    button.textContent = "■ stop";
    tell("Speak now: a word, or a short sentence.");
    timer = setTimeout(() => recorder && recorder.stop(), 1000 * model.get("seconds"));
  }
  button.onclick = () => (recorder ? recorder.stop() : start());
  el.append(button, said, player);
  return () => { closed = true; if (recorder) recorder.stop(); };      // the cell was cleared: let the microphone go
}
export default { render };
