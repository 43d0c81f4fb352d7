"""
A package that gives built-in names.
"""

raise RuntimeError("nobody should import this")
