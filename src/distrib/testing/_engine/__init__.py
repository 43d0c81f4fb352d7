"""
The laws of engines, by what they are about.
"""
