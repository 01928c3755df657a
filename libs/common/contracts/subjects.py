"""The subject tree. Agents speak on `up.<cluster>.…` and hear on `down.<cluster>.…`; services serve `svc.<service>.v1.…`.

`<cluster>` is the Cluster's uid, so that an agent of a deleted cluster can never speak for a later one of the same name.
"""

from __future__ import annotations


def service_method(service: str, method: str) -> str:
    return f"svc.{service}.v1.{method}"


def agent_method(cluster: str, service: str, method: str) -> str:
    """Request of an agent to a service; serve it with cluster = `*`, the first token is then the cluster."""
    return f"up.{cluster}.rpc.{service}.{method}"


def heartbeat(cluster: str) -> str:
    return f"up.{cluster}.hb"


def observation(cluster: str, kind: str) -> str:
    """Facts that an agent saw; `kind` is e.g. `nodes`."""
    return f"up.{cluster}.st.{kind}"


def notice(cluster: str) -> str:
    """The hub tells an agent that something changed; the agent asks what."""
    return f"down.{cluster}.notify"


def agent_inbox(cluster: str) -> str:
    """Prefix of the reply subjects of one agent; its credential lets it hear no other."""
    return f"_INBOX_{cluster}"


def sign_in_counts() -> str:
    """Replicas of identity tell each other which failed sign-ins they counted; nobody else speaks or hears there."""
    return "id.v1.counts"


AUDIT_STREAM = "AUDIT"


def audit(chain: str) -> str:
    """Batches of audit events of one chain; only front doors may publish there, and nobody may take anything back."""
    return f"audit.v1.{chain}"


RECORDINGS_STREAM = "RECORDINGS"


def recording(session: str, kind: str) -> str:
    """A message of a recorded session; `kind` is `head`, `part` or `end`."""
    return f"rec.{session}.{kind}"
