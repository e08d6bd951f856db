"""The memory that scores need, known without the kernels that compute them."""

from mint.gmi.cpu.sizes import memory_needs


def least_memory(
    rows: int, filters: tuple[int, int], groups: tuple[int, int], device: str = "cpu"
) -> int:
    """Return the smallest memory limit in bytes with which gmi_scores works.

    Args:
        rows: of the activations.
        filters: of the child and of the parent.
        groups: contiguous groups of the child and of the parent.
        device: cpu or cuda.
    """
    third = rows // 3
    if device == "cuda":
        from mint.gmi.gpu.engine import launch_bytes

        return launch_bytes(rows, rows - third, filters)
    widest = max(-(-count // number) for count, number in zip(filters, groups, strict=True))
    return memory_needs((rows - 2 * third, third), max(filters), groups[1], widest).least
