"""Plug-ins for whole kinds of task; most tasks need no other."""
