// What the person may do, so that no more is offered: asked of the hub as `kubectl auth can-i` asks, and never concluded here. A question that fails is
// no "no": what is not known is offered, and the hub decides when it is done.
import { API, GROUP, call, page } from "/ui/hub.js";

const KEPT_MS = 30 * 1000;
const SOON_TRIES = 25;
const SOON_MS = 200;
const ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
let known = new Map();

export function forgetRights() {
  known = new Map();
}

function remembered(key, ask) {
  const before = known.get(key);
  if (before && before.until > Date.now()) return before.answer;
  const mine = known;
  const answer = ask();
  mine.set(key, { answer, until: Date.now() + KEPT_MS });
  answer.catch(() => mine.delete(key));
  return answer;
}

// A session that has ended gives nobody a right.
const unlessUnknown = (asked) =>
  asked.catch((error) => {
    if (!page.session) throw error;
    return true;
  });

// `resource` may have a subresource, as in projects/namespaces.
export function may(verb, resource, name = "") {
  const [plural, subresource = ""] = resource.split("/");
  const ask = async () => {
    const spec = { resourceAttributes: { group: GROUP, verb, resource: plural, subresource, name } };
    const { status } = await call("POST", ACCESS, { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", spec });
    return status.allowed;
  };
  return unlessUnknown(remembered(JSON.stringify([verb, resource, name]), ask));
}

// Who makes something is given a role in it a moment later: asks until it counts, and then has other rights than before.
export async function untilMay(verb, resource, name) {
  for (let tries = 0; tries < SOON_TRIES; tries += 1) {
    forgetRights();
    if (await may(verb, resource, name)) return;
    await new Promise((done) => setTimeout(done, SOON_MS));
  }
}

// Rights on what belongs to a project and has no name yet: an access review of oneself, which every caller may ask.
export function mayIn(project, verb, resource) {
  const ask = async () => {
    const status = await review({ user: page.session.user, verb, apiGroup: GROUP, resource, project, limit: 1 });
    return Boolean(status.everybody) || (status.paths || []).length > 0;
  };
  return unlessUnknown(remembered(JSON.stringify([verb, resource, "in", project]), ask));
}

export async function review(spec) {
  const made = await call("POST", `${API}/accessreviews`, { apiVersion: `${GROUP}/v1`, kind: "AccessReview", spec });
  return made.status || {};
}

// All ids that stand for the person: their own, and those of their groups.
export function myIds() {
  return remembered("me", async () => {
    const kind = "SelfSubjectReview";
    const made = await call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", { apiVersion: "authentication.k8s.io/v1", kind });
    const { groups = [], extra = {} } = made.status.userInfo;
    return [...groups, ...(extra[`${GROUP}/principal`] || [])];
  });
}
