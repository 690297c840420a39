// The panel's text field and its button. It takes no second turn while an answer is made, says what happens, and notices a kernel
// that is gone. The text goes to Python with the button's message, not before: so it is the whole text, however fast one types.
const PATIENCE = 6000;                                                    // ms without a word from the kernel

function render({ model, el }) {
  const field = document.createElement("input"), button = document.createElement("button"), said = document.createElement("span");
  field.type = "text";
  field.placeholder = model.get("placeholder");
  field.setAttribute("aria-label", "what to say");
  field.setAttribute("data-lm-suppress-shortcuts", "true");               // Shift+Enter would run the cell again
  field.style.cssText = "flex:1 1 20em;min-width:0;max-width:46em;height:32px;padding:0 8px;box-sizing:border-box;font-size:inherit;"
    + "border:1px solid #888;background:var(--jp-layout-color0, #fff);color:var(--jp-ui-font-color1, #111)";
  button.className = "jupyter-button widget-button mod-primary";
  button.style.cssText = "width:auto;min-width:90px;padding:0 12px;height:32px;cursor:pointer";
  said.setAttribute("role", "status");
  let waiting = null;
  function show() {
    const busy = model.get("busy");
    if (busy || waiting === null) clearTimeout(waiting);
    if (busy) waiting = null;
    button.disabled = busy || waiting !== null;
    button.style.opacity = button.disabled ? 0.55 : 1;
    button.textContent = button.disabled ? "◌ asking" : "▶ Send";
    button.setAttribute("aria-label", "Send");
    said.textContent = model.get("status");
  }
  function send() {
    if (button.disabled) return;
    waiting = setTimeout(() => {
      waiting = null;
      show();
      said.textContent = "No word from the kernel: it is busy with another cell, or it was restarted. "
        + "If nothing happens, run the panel's cell again.";
    }, PATIENCE);
    show();
    said.textContent = "sent ...";
    model.send({ text: field.value }, undefined, []);
  }
  button.onclick = send;
  field.onkeydown = (event) => { if (event.key === "Enter" && !event.isComposing) send(); };
  model.on("msg:custom", (content) => { field.value = content.text; });
  model.on("change:busy", () => { if (!model.get("busy")) { clearTimeout(waiting); waiting = null; } show(); });
  model.on("change:status", show);
  show();
  const line = document.createElement("div");
  line.style.cssText = "display:flex;flex-wrap:wrap;align-items:center;gap:6px 8px;width:100%";
  line.append(field, button, said);
  el.append(line);
}
export default { render };
