"""
The laws of backends, by what they are about.
"""
