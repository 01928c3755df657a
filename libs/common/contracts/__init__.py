"""What crosses the bus, written once: subjects, methods, messages, and who may say and hear what.

`subjects` (the tree), `methods` (request and reply of each), `messages` (the models), `permissions` (rendered per service
and for agents), `generate` (writes `proto/` and checks it for drift).
"""
