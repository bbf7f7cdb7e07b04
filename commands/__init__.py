"""The dcmds that come with kshell."""
