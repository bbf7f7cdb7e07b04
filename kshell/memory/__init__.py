"""Memories: one image format or transport a file, all behind :class:`kshell.memory.model.Memory`."""
