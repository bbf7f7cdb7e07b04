"""Unwinding: from a program counter and a stack pointer to the callers. Knows no kernel structures and no names."""
