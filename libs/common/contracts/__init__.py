"""What crosses the bus, written once: subjects, methods, messages, and who may say and hear what.

`subjects` (the tree), `messages` (the models), `methods` (request and reply of each), `permissions` (rendered per service
and for agents). `libs.common.generator` writes `proto/` from them and checks it for drift.
"""
