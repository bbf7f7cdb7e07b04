"""Typed views of target memory: :class:`Value`, :class:`Vector`, member paths, and enum names."""

from __future__ import annotations

from kshell.value.path import Route, Step, offsetof, parse_path, resolve, sizeof
from kshell.value.value import Value, ValueTarget
from kshell.value.vector import Vector

__all__ = ["Route", "Step", "Value", "ValueTarget", "Vector", "offsetof", "parse_path", "resolve", "sizeof"]
