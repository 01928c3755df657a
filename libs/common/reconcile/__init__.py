"""Reconciling: keys in, the world made right, an outcome out. `outcome` (what a reconcile says), `queue` (which key is due),
`runner` (workers over the queue, fed by informers).

Level-based: a key says only that something may have changed; the reconciler reads the state again.
"""

from libs.common.reconcile.outcome import DONE, After, Done, Outcome, Terminal
from libs.common.reconcile.queue import KeyQueue
from libs.common.reconcile.runner import Reconciler, follow

__all__ = ["DONE", "After", "Done", "KeyQueue", "Outcome", "Reconciler", "Terminal", "follow"]
