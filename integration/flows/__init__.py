"""Whole stories, from the command that a person types to what the cluster then holds; every part in them is the real one."""
