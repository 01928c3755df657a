"""Real balancers in front of the hub, with the configurations of `docs/guides/balancers`: what the guide shows is what the tests run."""
