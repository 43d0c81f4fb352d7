"""
What torchrun and TorchX start: a program that does nothing.
"""
