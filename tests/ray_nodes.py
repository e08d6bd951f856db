"""A Ray cluster on this machine, in a process of its own, with one CPU for every node.

The arguments are the cache folders of the nodes, the head's first. The process prints the address
of the cluster, kills a node for every line of its input, and ends with its input.
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
