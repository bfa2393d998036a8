"""Exact proofs about plans: bounds, independence of par loops, what is written before it is read, memory."""
