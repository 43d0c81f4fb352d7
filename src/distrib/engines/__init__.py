"""
Where jobs run: one module or package for each engine.
"""
