"""A process that is a Ray cluster on this machine, with a core to every node.

Its arguments are the nodes' cache folders, the head's first. It prints the address of the cluster,
kills a node without warning at every line on its input, and ends where the input ends.
"""

import sys
from typing import Any

from ray.cluster_utils import Cluster


def main(caches: list[str]) -> None:
    cluster = Cluster()
    head, *others = (cluster.add_node(**_settings(cache)) for cache in caches)
    print(head.gcs_address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(others.pop(), allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


def _settings(cache: str) -> dict[str, Any]:
    return {"num_cpus": 1, "include_dashboard": False, "env_vars": {"MINT_CACHE_DIR": cache}}


if __name__ == "__main__":
    main(sys.argv[1:])
