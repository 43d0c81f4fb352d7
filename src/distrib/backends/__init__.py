"""
One module for each framework; loaded by name, on first use.
"""
