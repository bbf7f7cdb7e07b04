"""Linux data structures over a target: lists and trees, tasks, memory maps, modules, the log. Knows no dcmd.

Every reader asks the types what the kernel has, newest layout first, and names the change where it branches.
"""
