// The panel's button. It takes no second click while an answer is made, says what happens, and notices a kernel that is gone.
const PATIENCE = 6000;                                                    // ms without a word from the kernel

function render({ model, el }) {
  const button = document.createElement("button"), said = document.createElement("span");
  button.className = "jupyter-button widget-button mod-primary";
  button.style.cssText = "width:auto;min-width:90px;padding:0 12px;margin-right:8px;cursor:pointer";
  said.setAttribute("role", "status");
  let waiting = null;
  function show() {
    const busy = model.get("busy");
    if (busy || waiting === null) clearTimeout(waiting);
    if (busy) waiting = null;
    button.disabled = busy || waiting !== null;
    button.style.opacity = button.disabled ? 0.55 : 1;
    button.textContent = button.disabled ? "◌ asking" : "▶ Ask";
    button.setAttribute("aria-label", "Ask");
    said.textContent = model.get("status");
  }
  button.onclick = () => {
    if (button.disabled) return;
    said.textContent = "sent ...";
    waiting = setTimeout(() => {
      waiting = null;
      show();
      said.textContent = "No word from the kernel: it is busy with another cell, or it was restarted. "
        + "If nothing happens, run the panel's cell again.";
    }, PATIENCE);
    button.disabled = true;
    model.send({ ask: true }, undefined, []);
  };
  model.on("change:busy", () => { if (!model.get("busy")) { clearTimeout(waiting); waiting = null; } show(); });
  model.on("change:status", show);
  show();
  el.append(button, said);
}
export default { render };
