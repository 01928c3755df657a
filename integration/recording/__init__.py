"""Recorded sessions with the real kubectl, a real pod and a real nats-server; and the captures that the decoders' tests read."""
