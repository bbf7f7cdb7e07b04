"""Plugins that come with kshell: worked examples that are useful."""
