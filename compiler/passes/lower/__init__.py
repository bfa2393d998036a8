"""From fused groups of the graph to the kernels of the plan."""
