"""Reverse connections over real networks: links that are cut in silence, real proxies and balancers in between, readers that pause."""
