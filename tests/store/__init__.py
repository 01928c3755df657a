"""The store: one suite of promises (`conformance`) for every implementation, and the informer on top."""
