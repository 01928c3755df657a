"""Recorded exec and attach sessions: what is kept, how a stream is read, and how tampering shows.

Reading order: `events` (what happened), `websocket` and `spdy` (a relayed stream → events, with `channels` in common), `decoder` (which of
the two), `model` (who, where, how it ended), `chain` (signed and chained messages), `writer` (one session's way to the stream), `log`
(the stream in JetStream), `asciicast` and `screen` (a file for other players; what a viewer's terminal may be sent).

The front door writes, the gateway reads, the command line shows. A stream is decoded while it passes: what a person types must not be
stored by accident, and only a decoder knows which bytes that is. What can't be decoded can't be recorded, and so isn't passed on.
"""
