"""Targets: what is being debugged, made of memory, address spaces, symbols, types and CPUs."""
