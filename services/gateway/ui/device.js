// Letting a machine without a browser in: the person gives the code that it shows, sees what asks and from where, and decides.
import { call, element, onSubmit, say } from "/ui/hub.js";
import { shown } from "/ui/text.js";

let code = "";

function ask(asks) {
  element("device-what").replaceChildren(shown(asks ? asks.description || "A command line" : ""));
  element("device-from").textContent = asks ? asks.client_address : "";
  element("device-decide").hidden = !asks;
}

export function forgetDevice() {
  code = "";
  ask(null);
}

onSubmit("device", async () => {
  code = element("device-code").value.trim();
  ask(await call("POST", "/v1/devices/answer", { user_code: code }));
  element("device-deny").focus();
});

async function decide(answer) {
  try {
    await call("POST", "/v1/devices/answer", { user_code: code, answer });
    say(answer === "approve" ? "It is let in: go on there." : "It was refused.");
  } catch (error) {
    say(error.message, true);
  }
  element("device").reset();
  forgetDevice();
}
element("device-approve").addEventListener("click", () => decide("approve"));
element("device-deny").addEventListener("click", () => decide("deny"));

// The address that a command line shows leads straight to the field.
export function showDevice() {
  if (location.hash !== "#device") return;
  element("device-part").open = true;
  element("device-code").focus();
}
