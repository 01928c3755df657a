"""The store and the bus on a real nats-server: their conformance suites, and faults with an invariant each."""
