"""kshell: mdb for Linux. Reads and writes kernel and user memory in anything that holds memory."""

__version__ = "0.1.0"
