"""What the stages of training cost and how good they are, each side by side with a named peer.

`python -m benchmarks` measures. Machines differ, so read the ratios; both sides of each ratio are measured in
one process, one right after the other.
"""
