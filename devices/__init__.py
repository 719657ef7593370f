"""Boards and their parts: sources, preprocessing, runners."""
