// One's second factor: set up with a device, confirmed by a code that it shows, taken away again. What is shown once is kept nowhere.
import { call, copy, element, onSubmit, page, say, untilDone } from "/ui/hub.js";

const SVG = "http://www.w3.org/2000/svg";
const PARTS = ["factor-begin", "factor-device", "factor-codes", "factor-remove"];
let password = "";

function showPart(id) {
  for (const part of PARTS) element(part).hidden = part !== id;
}

export function forgetFactor() {
  password = "";
  for (const shown of ["factor-picture", "factor-secret", "recovery-codes"]) element(shown).replaceChildren();
  for (const form of ["factor-begin", "factor-confirm", "factor-remove"]) element(form).reset();
}

export function showFactor(isSet) {
  // What is under way stays: the tables around it are filled again and again.
  if (!element("factor-device").hidden || !element("factor-codes").hidden) return;
  element("factor-state").textContent = isSet
    ? "When you sign in, you are asked for a code of your device."
    : page.session.must_set_second_factor
      ? "This hub asks for a second factor: until you have set one up, nothing else is allowed."
      : "With a second factor, whoever learns your password still cannot sign in.";
  showPart(isSet ? "factor-remove" : "factor-begin");
}

// Drawn from its modules: nothing that came over the network is read as markup.
function draw(rows) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${rows.length} ${rows.length}`);
  picture.setAttribute("shape-rendering", "crispEdges");
  const dark = document.createElementNS(SVG, "path");
  const modules = rows.flatMap((line, y) => [...line].map((module, x) => (module === "1" ? `M${x} ${y}h1v1h-1z` : "")));
  dark.setAttribute("d", modules.join(""));
  picture.append(dark);
  element("factor-picture").replaceChildren(picture);
}

onSubmit("factor-begin", async () => {
  password = element("factor-password").value;
  const begun = await call("POST", "/v1/second-factor", { password });
  element("factor-begin").reset();
  draw(begun.qr);
  element("factor-secret").textContent = begun.secret.replace(/(.{4})(?=.)/g, "$1 ");
  showPart("factor-device");
  element("factor-code").focus();
});

onSubmit("factor-confirm", async () => {
  const { codes } = await call("POST", "/v1/second-factor/confirm", { password, code: element("factor-code").value.trim() });
  forgetFactor();
  element("factor-state").textContent = "";
  element("recovery-codes").textContent = codes.join("\n");
  showPart("factor-codes");
  element("codes-copy").focus();
});

onSubmit("factor-remove", async () => {
  const given = { password: element("remove-password").value, code: element("remove-code").value.trim() };
  await call("POST", "/v1/second-factor/remove", given);
  element("factor-remove").reset();
  say("The second factor is removed.");
  showFactor(false);
});

element("codes-copy").addEventListener("click", () => copy(element("recovery-codes"), "The recovery codes are copied."));

element("codes-download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${element("recovery-codes").textContent}\n`], { type: "text/plain" }));
  link.download = "herdsman-recovery-codes.txt";
  link.click();
  URL.revokeObjectURL(link.href);
});

element("codes-done").addEventListener("click", async () => {
  forgetFactor();
  element("factor-codes").hidden = true;
  showFactor(true);
  if (!page.session.must_set_second_factor) return;
  try {
    await untilDone("must_set_second_factor");
    page.enter();
  } catch (error) {
    say(error.message, true);
  }
});

element("factor-cancel").addEventListener("click", () => {
  forgetFactor();
  element("factor-device").hidden = true;
  showFactor(false);
});
