// One dialog for everything that wants more than a click: what it is about, fields, and the answer. It stays open until the work is done or given
// up, and says itself what went wrong, as the page behind it can't be read.
import { element } from "/ui/hub.js";
import { part, plain, shown } from "/ui/text.js";

const dialog = element("ask");
let running = null;

function fieldOf(field) {
  const id = `ask-${field.name}`;
  const label = part("label", "", field.label);
  label.htmlFor = id;
  const made = document.createElement(field.options ? "select" : "input");
  if (field.options) made.append(...field.options.map((one) => new Option(plain(one.text), one.value)));
  else Object.assign(made, { autocapitalize: "none", spellcheck: false, maxLength: field.longest || 1024, autocomplete: "off" });
  if (!field.options) made.dir = "auto";
  Object.assign(made, { id, required: Boolean(field.required) });
  const parts = [label, made];
  if (field.suggested) {
    const known = document.createElement("datalist");
    known.id = `${id}-known`;
    known.append(...field.suggested.map((value) => new Option("", value)));
    made.setAttribute("list", known.id);
    parts.push(known);
  }
  if (field.hint) {
    const hint = part("p", "hint", field.hint);
    hint.id = `${id}-hint`;
    made.setAttribute("aria-describedby", hint.id);
    parts.push(hint);
  }
  return parts;
}

// Opens it. `facts`: [what, text] pairs; `work` gets the fields' values by name.
export function ask({ title, text = "", facts = [], fields = [], confirm, work }) {
  close();
  element("ask-title").textContent = title;
  element("ask-text").replaceChildren(shown(text));
  element("ask-facts").replaceChildren(...facts.flatMap(([what, said]) => [part("dt", "", what), part("dd", "", shown(said))]));
  element("ask-fields").replaceChildren(...fields.flatMap(fieldOf));
  element("ask-problem").textContent = "";
  element("ask-do").textContent = confirm;
  element("ask-do").disabled = false;
  running = { work, names: fields.map((field) => field.name) };
  dialog.showModal();
  const first = element("ask-fields").querySelector("input, select, textarea") || element("ask-cancel");
  first.focus();
}

export function close() {
  running = null;
  if (dialog.open) dialog.close();
}

element("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const mine = running;
  if (!mine) return;
  const values = Object.fromEntries(mine.names.map((name) => [name, element(`ask-${name}`).value.trim()]));
  element("ask-do").disabled = true;
  element("ask-problem").textContent = "";
  try {
    await mine.work(values);
    if (running === mine) close();
  } catch (error) {
    if (running !== mine) return;
    element("ask-problem").replaceChildren(shown(error.message));
    element("ask-do").disabled = false;
    const field = error.field && element("ask-fields").querySelector(error.field);
    (field || element("ask-cancel")).focus();
  }
});

element("ask-cancel").addEventListener("click", close);
// Escape closes it as well.
dialog.addEventListener("close", () => {
  running = null;
  for (const shownPart of ["ask-text", "ask-facts", "ask-fields", "ask-problem"]) element(shownPart).replaceChildren();
});
