"""The models that cross the bus. A released meaning never changes: a new one is a new method or a new field.

`identity` fields hold the signed envelope of the front door (`libs.common.crypto.envelope`), never a claim to be trusted.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

PatchType = Literal["json", "merge", "apply"]


class Empty(BaseModel):
    """Nothing to say."""


class Health(BaseModel):
    """Answer of every service to `ping`: `ready` when all it depends on is caught up, else `waiting_for` says what is not."""

    service: str
    version: str
    ready: bool
    waiting_for: list[str] = Field(default_factory=list)


# ── resources ────────────────────────────────────────────────────────────────────────────────────────────────────────


class WriteOptions(BaseModel):
    dry_run: bool = False
    field_manager: str = ""
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    force: bool = False
    propagation_policy: str = ""
    precondition_uid: str = ""
    precondition_resource_version: str = ""


class ResourceWrite(BaseModel):
    """One write to one object, for the owner of its kind. `body` is the document, or the patch (a list for JSON patch)."""

    identity: str
    request_id: str = ""
    verb: Literal["create", "update", "patch", "delete"]
    plural: str
    name: str = ""
    subresource: Literal["", "status"] = ""
    patch_type: PatchType | None = None
    body: Any = None
    options: WriteOptions = Field(default_factory=WriteOptions)


class ResourceWriteReply(BaseModel):
    """The object after the write (for delete: as it was); `created` decides 201 or 200; warnings become Warning headers."""

    document: dict[str, Any]
    revision: int
    created: bool = False
    deleted: bool = False
    warnings: list[str] = Field(default_factory=list)


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class LoginRequest(BaseModel):
    user: str = Field(max_length=253)
    password: str = Field(max_length=1024)
    description: str = Field(default="", max_length=256)
    client_address: str = ""
    provider: str = Field(default="local", max_length=63, description="Where the account is.")
    one_time_code: str = Field(default="", max_length=64, description="Second factor: a code, or a recovery code.")
    session: bool = Field(default=False, description="True: a browser's session, else a token for a command line.")


class IssuedToken(BaseModel):
    """The only time that a token's secret is seen."""

    token: str
    name: str
    user: str
    expires_at: AwareDatetime
    must_change_password: bool = Field(
        default=False, description="Until the password is changed the token is good for nothing else."
    )
    must_set_second_factor: bool = Field(
        default=False, description="Until a second factor is set up the token is good for nothing else."
    )
    notices: list[str] = Field(
        default_factory=list, description="What the person should know: groups that could not be read."
    )


class SignInOption(BaseModel):
    """One way to sign in. `flow`: a form for name and password, or a redirect to the provider."""

    provider: str
    display_name: str
    type: str
    flow: Literal["password", "redirect"]


class SignInOptions(BaseModel):
    options: list[SignInOption] = Field(default_factory=list)


class RedirectBegin(BaseModel):
    """Begin a sign-in at a provider that has a page of its own, or, with an `identity`, link the account there to the caller."""

    provider: str = Field(max_length=63)
    redirect_uri: str = Field(max_length=2048, description="Where the provider sends the browser back to.")
    return_to: str = Field(
        default="", max_length=2048, description="Path of the UI to go on with, or a CLI's own address."
    )
    session: bool = False
    description: str = Field(default="", max_length=256)
    identity: str = ""


class RedirectBegun(BaseModel):
    """`pending` is sealed and belongs into a cookie of the browser that is sent to `url`: the answer counts with it alone."""

    url: str
    pending: str
    expires_at: AwareDatetime


class RedirectFinish(BaseModel):
    """The browser is back: the parameters as they came, and the cookie."""

    provider: str = Field(max_length=63)
    redirect_uri: str = Field(max_length=2048)
    parameters: dict[str, str]
    pending: str = Field(max_length=8192)
    client_address: str = ""
    identity: str = Field(default="", description="For linking: the caller, who must be the one that began.")


class RedirectFinished(BaseModel):
    """`issued` is absent where an account was linked and nobody signed in."""

    issued: IssuedToken | None = None
    return_to: str = ""
    session: bool = False
    linked: str = ""


class PrincipalSearch(BaseModel):
    """Users and groups to give roles to, by a part of their name. `provider` empty = all that are enabled."""

    identity: str
    text: str = Field(min_length=1, max_length=256)
    kind: Literal["", "user", "group"] = ""
    provider: str = Field(default="", max_length=63)
    limit: int = Field(default=20, ge=1, le=100)


class FoundPrincipal(BaseModel):
    principal_id: str
    provider: str
    kind: Literal["user", "group"]
    name: str
    display_name: str = ""
    email: str = ""


class FoundPrincipals(BaseModel):
    """`notices` say which providers did not answer, and where there is more than the limit."""

    principals: list[FoundPrincipal] = Field(default_factory=list)
    notices: list[str] = Field(default_factory=list)


class ProviderTest(BaseModel):
    """Try a provider as it is stored, enabled or not; with a name and password it is a sign-in that lets nobody in."""

    identity: str
    provider: str = Field(max_length=63)
    user: str = Field(default="", max_length=256)
    password: str = Field(default="", max_length=1024)


class ProviderTested(BaseModel):
    """`ok` False: `problem` says what to do. With a person, who that is and in which groups."""

    ok: bool
    problem: str = ""
    took_ms: int = 0
    principal_id: str = ""
    user_name: str = ""
    groups: list[str] = Field(default_factory=list, description="Names of the person's groups.")
    notices: list[str] = Field(default_factory=list)


class TokenIssue(BaseModel):
    """Issue a token to the caller; `ttl_s` is cut to the allowed maximum for the purpose.

    With `user`, for that service user, by whoever may update it and holds all of its rights.
    """

    identity: str
    user: str = Field(default="", max_length=253)
    purpose: Literal["kubeconfig", "api", "exec"]
    description: str = Field(default="", max_length=256)
    clusters: list[str] = Field(default_factory=list)
    projects: list[str] = Field(default_factory=list)
    read_only: bool = False
    ttl_s: int | None = None


class TokenExchange(BaseModel):
    """A workload's own token for one of the service user that a FederatedCredential names (RFC 8693). Nobody has signed in."""

    subject_token: str = Field(max_length=16_384)
    resource: str = Field(default="", max_length=253, description="Name of the FederatedCredential that is meant.")
    client_address: str = ""


class TokenExchanged(BaseModel):
    """`issued`, or `error` as RFC 6749 5.2 and RFC 8693 2.2.2 name it, with words for whoever asked."""

    issued: IssuedToken | None = None
    expires_in_s: int = 0
    error: Literal["", "invalid_request", "invalid_grant"] = ""
    description: str = ""


class SessionExtend(BaseModel):
    """A browser's session was used: it goes on for its idle limit from now, never beyond its absolute one."""

    identity: str


class SessionExtended(BaseModel):
    expires_at: AwareDatetime
    ends_at: AwareDatetime = Field(description="Then the person must sign in again, whatever is done until then.")


class TokenRevoke(BaseModel):
    """Revoke the caller's own token: sign-out. `return_to`: the page to come back to from the provider's own sign-out."""

    identity: str
    return_to: str = Field(default="", max_length=2048)


class TokenRevoked(BaseModel):
    """Where to send the browser so that it is signed out at the provider as well, which brings it back with `state`; empty = nowhere."""

    url: str = ""
    state: str = ""
    still_signed_in_at: str = Field(
        default="", description="What the provider is called where the person's own session may go on; empty = nowhere."
    )


class BackChannelLogout(BaseModel):
    """A provider says that somebody was signed out there (OpenID Connect Back-Channel Logout 1.0). Nobody has signed in."""

    provider: str = Field(max_length=63)
    logout_token: str = Field(max_length=16_384)
    client_address: str = ""


class BackChannelLoggedOut(BaseModel):
    """`error`: empty, or what the answer of 400 says, with words for whoever asked."""

    error: Literal["", "invalid_request", "temporarily_unavailable"] = ""
    description: str = ""


class TokenUse(BaseModel):
    name: str = Field(max_length=63)
    at: AwareDatetime


class TokenUses(BaseModel):
    """Tokens that a front door saw used, each with its last use there."""

    uses: list[TokenUse] = Field(max_length=1000)


class PasswordChange(BaseModel):
    """Set a password: one's own with the current one, another person's by whoever may update users and holds all their rights."""

    identity: str
    user: str
    current_password: str = Field(default="", max_length=1024)
    new_password: str = Field(max_length=1024)
    must_change: bool = Field(
        default=False,
        description="Not looked at: what another person set has to be changed at the next sign-in, always.",
    )


class BrowserCallback(BaseModel):
    """Where a command line listens for the browser of its own machine (RFC 8252 7.3), and the S256 challenge that its code is bound to (RFC 7636).

    A port and never an address: the browser is only ever sent to 127.0.0.1.
    """

    port: int = Field(ge=1024, le=65535, examples=[49152])
    state: str = Field(pattern=r"^[A-Za-z0-9_-]{16,128}$", examples=["dA0BJd6fUyFvqTtPr3oY7w"])
    code_challenge: str = Field(
        pattern=r"^[A-Za-z0-9_-]{43}$", examples=["E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"]
    )


class DeviceBegin(BaseModel):
    """A machine asks to be let in by somebody who is signed in elsewhere, or with `browser` in the browser of that very machine."""

    description: str = Field(default="", max_length=256)
    client_address: str = ""
    browser: BrowserCallback | None = None


class DeviceBegun(BaseModel):
    """`device_code` stays with the machine, `user_code` is shown to the person."""

    device_code: str
    user_code: str
    interval_s: int
    expires_at: AwareDatetime


class DeviceAnswer(BaseModel):
    """The signed-in person: what is that code (no answer yet), or the decision.

    `browser`: the code came in an address that a command line opened, not from the person's hand; each is good for its own kind alone.
    """

    identity: str
    user_code: str = Field(max_length=32)
    answer: Literal["", "approve", "deny"] = ""
    browser: bool = False


class DeviceShown(BaseModel):
    """What asks, as it says, and from where, as the front door saw it. `redirect`: where the answer takes the browser."""

    description: str
    client_address: str
    redirect: str = ""


class DeviceFetch(BaseModel):
    """`code` is what the browser brought, and `code_verifier` what its challenge was made of; for a machine without a browser both are empty."""

    device_code: str = Field(max_length=128)
    client_address: str = ""
    code: str = Field(default="", max_length=128)
    code_verifier: str = Field(default="", max_length=128)


class DeviceFetched(BaseModel):
    """`issued` is absent while nobody has answered."""

    issued: IssuedToken | None = None


class SecondFactorBegin(BaseModel):
    """Set up one-time codes for the caller, who gives the password again. `hub` is the name that the device shows."""

    identity: str
    password: str = Field(max_length=1024)
    hub: str = Field(default="Herdsman", max_length=64)


class SecondFactorBegun(BaseModel):
    """The only time that the secret is seen. It counts once a code of it was confirmed."""

    secret: str
    uri: str


class SecondFactorConfirm(BaseModel):
    identity: str
    password: str = Field(max_length=1024)
    code: str = Field(max_length=64)


class RecoveryCodes(BaseModel):
    """Each is good for one sign-in without the device. The only time that they are seen."""

    codes: list[str]


class SecondFactorRemove(BaseModel):
    """One's own with password and a code, or another person's (`user`) by whoever may set that person's password."""

    identity: str
    user: str = Field(default="", max_length=253)
    password: str = Field(default="", max_length=1024)
    code: str = Field(default="", max_length=64)


class ScimCall(BaseModel):
    """One call by SCIM (RFC 7644), for the provider that pushes. `query` are the parameters of the address, `base_url` is what `/Users` stands under."""

    identity: str
    provider: str
    operation: Literal["list", "read", "create", "replace", "patch", "delete"]
    kind: Literal["Users", "Groups", "ServiceProviderConfig", "ResourceTypes", "Schemas"]
    id: str = Field(default="", max_length=256)
    query: dict[str, str] = Field(default_factory=dict)
    body: dict[str, Any] | None = None
    base_url: str = ""


class ScimReply(BaseModel):
    """The answer, also where SCIM has an error of its own for what was wrong; `document` None = no body."""

    status: int
    document: dict[str, Any] | None = None


class IdentityEvent(BaseModel):
    """What identity did or refused, for the audit log. Never a secret, and nothing that somebody typed but the name of an account that exists.

    `actor` is who did it: proved, unless `outcome` is a failure of somebody who has shown no token; empty = the hub itself, or nobody knows. `account` is
    the user whom it is about. `count` above 1: so many alike since `since`, told together.
    """

    id: str = Field(pattern=r"^[0-9a-f-]{36}$", examples=["0d6e0c5e-6e0b-4a5c-9d9c-0a6b7d3f1c11"])
    at: AwareDatetime
    action: str = Field(pattern=r"^[a-z-]{1,40}$", examples=["sign-in"])
    outcome: Literal["success", "failure"]
    reason: str = Field(default="", pattern=r"^[a-z0-9_]{0,60}$", examples=["wrong_password"])
    code: int = Field(default=200, ge=0, le=599, examples=[401])
    by: Literal["person", "nobody", "hub"] = Field(
        description="Whether the actor came with a token or proved to be the account, nobody knows who it was, or the hub did it by itself."
    )
    actor: str = Field(default="", max_length=253)
    actor_uid: str = Field(default="", max_length=64)
    account: str = Field(default="", max_length=253)
    provider: str = Field(default="", max_length=63)
    token: str = Field(default="", max_length=63, description="Name of the token that was given, used or revoked.")
    resource: str = Field(default="", max_length=63, description="Plural of the kind of the object that it is about.")
    name: str = Field(default="", max_length=253, description="Name of that object.")
    address: str = Field(default="", max_length=64)
    agent: str = Field(default="", max_length=256, description="User agent.")
    note: str = Field(default="", max_length=1024)
    count: int = Field(default=1, ge=1)
    since: AwareDatetime | None = None


class IdentityEvents(BaseModel):
    """Answered once all are on their way into the audit log. An event may come twice, with one id: an answer was lost."""

    events: list[IdentityEvent] = Field(max_length=200)


class SignInCount(BaseModel):
    """How often an attempt failed. `key` is a hash: what somebody typed as a name may be a password."""

    kind: str = Field(max_length=16)
    key: str = Field(max_length=64)
    failures: int = Field(ge=0)


class SignInCounts(BaseModel):
    """One replica of identity tells the others. began: an attempt counts as failed from now; right: it was none, so it is taken back; stand: what
    the teller has, for somebody who has less.
    """

    teller: str = Field(max_length=36)
    throttle: str = Field(max_length=32)
    what: Literal["began", "right", "stand"]
    counts: list[SignInCount] = Field(max_length=4)


# ── clusters and agents ──────────────────────────────────────────────────────────────────────────────────────────────


class RegistrationIssue(BaseModel):
    identity: str
    cluster: str
    ttl_s: int = 3600


class IssuedRegistration(BaseModel):
    """The only time that a registration token's secret is seen."""

    token: str
    cluster: str
    cluster_uid: str
    expires_at: AwareDatetime


class ManifestRequest(BaseModel):
    """Which cluster does this (valid, unused) registration token belong to? Asked when the import manifest is fetched."""

    token: str = Field(max_length=256)


class AgentRegistration(BaseModel):
    """An agent exchanges its one-time token and its own public key for a credential."""

    token: str = Field(max_length=256)
    public_key: str = Field(max_length=64)
    agent_version: str = Field(default="", max_length=64)


class AgentCredential(BaseModel):
    """`jwt` is the NATS user JWT for `public_key`; the seed never left the agent. Renew after `renew_after_s`."""

    cluster: str
    cluster_uid: str
    jwt: str
    expires_at: AwareDatetime
    renew_after_s: int


class AgentRenewal(BaseModel):
    """Ask for a fresh JWT before the old one expires; the key stays the same.

    `public_key` is the key that the agent has: refused when another agent has registered for the cluster since.
    """

    agent_version: str = Field(default="", max_length=64)
    public_key: str = Field(default="", max_length=64)


# ── projects ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class ProjectMake(BaseModel):
    """Make a project from a template, with what that says and no more."""

    identity: str
    request_id: str = ""
    template: str = Field(max_length=253)
    name: str = Field(max_length=63)
    display_name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=4096)


class ProjectMade(BaseModel):
    document: dict[str, Any]


class NamespaceCreate(BaseModel):
    """Have a namespace made in a cluster. `project` empty = the only one of that cluster in which the caller may do that."""

    identity: str
    request_id: str = ""
    cluster: str = Field(max_length=63)
    namespace: str = Field(max_length=63)
    project: str = Field(default="", max_length=63)
    dry_run: bool = False


class NamespaceCreated(BaseModel):
    """`uid` is the namespace's own, and all that the project says of it is applied; empty = the project has it, and `pending` says what is missing."""

    project: str
    cluster: str
    namespace: str
    uid: str = ""
    pending: str = ""


class NamespaceMove(BaseModel):
    """Move a namespace from the project that has it into another, in one step. `source`: refused when another project has it now."""

    identity: str
    request_id: str = ""
    cluster: str = Field(max_length=63)
    namespace: str = Field(max_length=63)
    project: str = Field(max_length=63)
    source: str = Field(default="", max_length=63)


class NamespaceMoved(BaseModel):
    """Both projects as they are stored now; the same twice where the namespace was in the wanted project already."""

    source: dict[str, Any]
    target: dict[str, Any]


# ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Heartbeat(BaseModel):
    """Every 10 s from each agent, and at once when something in it changes."""

    agent_version: str = Field(max_length=64)
    kubernetes_version: str = Field(default="", max_length=64)
    api_server_healthy: bool = False
    api_server_message: str = Field(default="", max_length=512)
    node_count: int | None = None
    tunnels: int = 0
    applied: dict[str, str] = Field(
        default_factory=dict,
        description="Part name → hash that is applied; only agents that know no appliedSet say so.",
    )
    applied_set: str = Field(default="", max_length=64, description="Hash of the parts that are applied.")
    trusted_ca: str = Field(
        default="", max_length=64, description="Digest of the hub's certificate authorities that the agent trusts."
    )
    carrier: str = Field(
        default="", max_length=16, description="What carries its reverse connections: plain or websocket."
    )


class NodeObservation(BaseModel):
    """One node as the agent saw it: fields of `NodeStatus`, camelCase."""

    name: str
    uid: str = ""
    status: dict[str, Any]


class NodesObserved(BaseModel):
    """All or some nodes of a cluster. `complete`: nodes that are neither in `nodes` nor in `present` are gone.

    A listing that one message cannot hold comes as several; the last is `complete` and names in `present` what the others held.
    """

    nodes: list[NodeObservation]
    complete: bool = False
    present: list[str] = Field(default_factory=list)


class NamespaceObservation(BaseModel):
    """One namespace as the agent saw it. `project`: uid of the project that it is marked with; `used`: of that project's quota in it."""

    name: str = Field(max_length=63)
    uid: str = Field(default="", max_length=64)
    project: str = Field(default="", max_length=64)
    deleting: bool = False
    used: dict[str, str] = Field(default_factory=dict, max_length=64)


class NamespacesObserved(BaseModel):
    """All or some namespaces of a cluster; `complete` and `present` as in NodesObserved."""

    namespaces: list[NamespaceObservation]
    complete: bool = False
    present: list[str] = Field(default_factory=list)


class Notice(BaseModel):
    """The desired set's hash changed; ask for what differs."""

    hash: str = ""
    spread_s: float = Field(
        default=1.0,
        ge=0.0,
        le=60.0,
        description="Agents that are told the same at once spread their questions over so long.",
    )


class DesiredQuery(BaseModel):
    """Which parts differ from these? `have` maps part name → applied hash."""

    have: dict[str, str] = Field(default_factory=dict)


class DesiredPart(BaseModel):
    """A named list of Kubernetes objects that the agent keeps applied; everything it owns under this name and is not listed goes."""

    name: str
    hash: str
    objects: list[dict[str, Any]]


class DesiredSet(BaseModel):
    """`parts` holds only what differs, `names` all part names; `detach` = remove everything that you own, report, and stop."""

    hash: str
    names: list[str]
    parts: list[DesiredPart]
    detach: bool = False


class PartReport(BaseModel):
    name: str
    hash: str
    objects: int = 0
    error: str = Field(default="", max_length=1024)
    repairs: int = Field(
        default=0, description="How often the agent put right what somebody else had changed, since it started."
    )
    repaired: str = Field(default="", max_length=1024, description="What it put right last.")


class AppliedReport(BaseModel):
    """What the agent applied. With `detached` it says that everything it owned is removed; `left` lists what could not be."""

    parts: list[PartReport] = Field(default_factory=list)
    detached: bool = False
    left: list[str] = Field(default_factory=list)
