"""An index made in a process of low priority. In: a reference to its plan. Out: the name of its snapshot.

It imports next to nothing: Ray imports this module before the priority is lowered, and what the work needs only after that.
"""

from __future__ import annotations

import os
from typing import Any

LOWEST = 19


def reindex_yielding(plan: list[Any], num_workers: int, low_priority: bool) -> str:
    """Lower the priority of this process if that is wanted, then fetch the plan, the only one in a list of references, and follow it."""
    if low_priority:
        os.nice(LOWEST)
    import ray

    from ragray.cluster.refresh import make_index

    return make_index(ray.get(plan[0]), num_workers)
