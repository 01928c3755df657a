"""The wiring of recorded sessions: their task, and their place in the order of stopping."""

from __future__ import annotations

from libs.common.audit.event import audit_id
from libs.common.crypto.envelope import Signer
from libs.common.recording.log import DAY_S, MB, JetStreamLog
from libs.common.runtime.host import Host
from services.auth_proxy.audit import AuditLog
from services.auth_proxy.calls import HasPolicy
from services.auth_proxy.config import AuthProxyConfig
from services.auth_proxy.figures import Figures
from services.auth_proxy.recording import Recorder
from services.auth_proxy.recording_policy import SessionRecording


def start_recording(
    host: Host[AuthProxyConfig], signer: Signer, policy: HasPolicy, audit: AuditLog, figures: Figures
) -> SessionRecording:
    """What the cluster route asks. The last parts are stored after everything that is started later has stopped."""
    config = host.config
    stream = JetStreamLog(
        host.bus, max_bytes=config.recordings_max_mb * MB, max_age_s=config.recordings_max_days * DAY_S,
        replicas=config.bucket_replicas,
    )  # fmt: skip
    recorder = Recorder(stream, signer, host.now)
    host.spawn("recordings", recorder.run())
    host.on_stop(recorder.drain)
    figures.follow("herdsman_open_recordings", "Sessions that are recorded now", lambda: recorder.open)
    return SessionRecording(policy, recorder.wrap, lambda number: audit_id(audit.chain, number), host.now)
