"""All request/reply methods: who serves them, what goes in, what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from libs.common.contracts import messages as m
from libs.common.contracts import subjects

Q = TypeVar("Q", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """`subject` for services; methods for agents have `for_agents` and take the cluster's uid with `agent_subject`."""

    service: str
    name: str
    request: type[Q]
    reply: type[A]
    callers: tuple[str, ...] = ()
    for_agents: bool = False

    @property
    def subject(self) -> str:
        if self.for_agents:
            return subjects.agent_method("*", self.service, self.name)
        return subjects.service_method(self.service, self.name)

    def agent_subject(self, cluster_uid: str) -> str:
        return subjects.agent_method(cluster_uid, self.service, self.name)


SERVICES = ("identity", "authz", "project", "node_registry", "cluster_controller", "auth_proxy", "gateway")
OWNERS = ("identity", "authz", "project", "node_registry", "cluster_controller")


def _write(owner: str, *callers: str) -> Method[m.ResourceWrite, m.ResourceWriteReply]:
    return Method(owner, "write", m.ResourceWrite, m.ResourceWriteReply, ("gateway", *callers))


WRITE = {owner: _write(owner) for owner in OWNERS}
PING = {service: Method(service, "ping", m.Empty, m.Health, ("gateway",)) for service in SERVICES}

LOGIN = Method("identity", "login", m.LoginRequest, m.IssuedToken, ("gateway",))
ISSUE_TOKEN = Method("identity", "issue_token", m.TokenIssue, m.IssuedToken, ("gateway",))
EXCHANGE_TOKEN = Method("identity", "exchange_token", m.TokenExchange, m.TokenExchanged, ("gateway",))
REVOKE_TOKEN = Method("identity", "revoke_token", m.TokenRevoke, m.TokenRevoked, ("gateway",))
BACK_CHANNEL_LOGOUT = Method(
    "identity", "back_channel_logout", m.BackChannelLogout, m.BackChannelLoggedOut, ("gateway",)
)
BEGIN_DEVICE = Method("identity", "begin_device", m.DeviceBegin, m.DeviceBegun, ("gateway",))
ANSWER_DEVICE = Method("identity", "answer_device", m.DeviceAnswer, m.DeviceShown, ("gateway",))
FETCH_DEVICE = Method("identity", "fetch_device", m.DeviceFetch, m.DeviceFetched, ("gateway",))
BEGIN_SECOND_FACTOR = Method("identity", "begin_second_factor", m.SecondFactorBegin, m.SecondFactorBegun, ("gateway",))
CONFIRM_SECOND_FACTOR = Method(
    "identity", "confirm_second_factor", m.SecondFactorConfirm, m.RecoveryCodes, ("gateway",)
)
REMOVE_SECOND_FACTOR = Method("identity", "remove_second_factor", m.SecondFactorRemove, m.Empty, ("gateway",))
EXTEND_SESSION = Method("identity", "extend_session", m.SessionExtend, m.SessionExtended, ("gateway",))
NOTE_TOKEN_USE = Method("identity", "note_token_use", m.TokenUses, m.Empty, ("auth_proxy",))
SIGN_IN_OPTIONS = Method("identity", "sign_in_options", m.Empty, m.SignInOptions, ("gateway",))
BEGIN_REDIRECT = Method("identity", "begin_redirect", m.RedirectBegin, m.RedirectBegun, ("gateway",))
FINISH_REDIRECT = Method("identity", "finish_redirect", m.RedirectFinish, m.RedirectFinished, ("gateway",))
SEARCH_PRINCIPALS = Method("identity", "search_principals", m.PrincipalSearch, m.FoundPrincipals, ("gateway",))
TEST_PROVIDER = Method("identity", "test_provider", m.ProviderTest, m.ProviderTested, ("gateway",))
CHANGE_PASSWORD = Method("identity", "change_password", m.PasswordChange, m.Empty, ("gateway",))
SCIM = Method("identity", "scim", m.ScimCall, m.ScimReply, ("gateway",))
# The subject says whose events these are, and nobody else may ask there: each service writes as itself alone.
AUDIT_IDENTITY = Method("auth_proxy", "audit_identity", m.IdentityEvents, m.Empty, ("identity",))

MAKE_PROJECT = Method("project", "make_project", m.ProjectMake, m.ProjectMade, ("gateway",))
CREATE_NAMESPACE = Method("project", "create_namespace", m.NamespaceCreate, m.NamespaceCreated, ("gateway",))
MOVE_NAMESPACE = Method("project", "move_namespace", m.NamespaceMove, m.NamespaceMoved, ("gateway",))

ISSUE_REGISTRATION = Method(
    "cluster_controller", "issue_registration", m.RegistrationIssue, m.IssuedRegistration, ("gateway",)
)
CHECK_REGISTRATION = Method(
    "cluster_controller", "check_registration", m.ManifestRequest, m.IssuedRegistration, ("gateway",)
)
REGISTER_AGENT = Method("cluster_controller", "register_agent", m.AgentRegistration, m.AgentCredential, ("gateway",))

RENEW_AGENT = Method("cluster_controller", "renew", m.AgentRenewal, m.AgentCredential, for_agents=True)
GET_DESIRED = Method("cluster_controller", "desired", m.DesiredQuery, m.DesiredSet, for_agents=True)
REPORT_TRIAL = Method("authz", "trial", m.TrialReport, m.Empty, for_agents=True)
REPORT_APPLIED = Method("cluster_controller", "applied", m.AppliedReport, m.Empty, for_agents=True)

METHODS: tuple[Method[Any, Any], ...] = (
    *WRITE.values(), *PING.values(), LOGIN, ISSUE_TOKEN, EXCHANGE_TOKEN, REVOKE_TOKEN, BACK_CHANNEL_LOGOUT, CHANGE_PASSWORD,
    BEGIN_DEVICE, ANSWER_DEVICE, FETCH_DEVICE,
    BEGIN_SECOND_FACTOR, CONFIRM_SECOND_FACTOR, REMOVE_SECOND_FACTOR, EXTEND_SESSION, NOTE_TOKEN_USE, SIGN_IN_OPTIONS,
    BEGIN_REDIRECT, FINISH_REDIRECT, SEARCH_PRINCIPALS, TEST_PROVIDER, SCIM, AUDIT_IDENTITY, MAKE_PROJECT, CREATE_NAMESPACE, MOVE_NAMESPACE, ISSUE_REGISTRATION,
    CHECK_REGISTRATION, REGISTER_AGENT, RENEW_AGENT, GET_DESIRED, REPORT_APPLIED, REPORT_TRIAL,
)  # fmt: skip
