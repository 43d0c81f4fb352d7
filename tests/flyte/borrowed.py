"""
Tasks of functions that this module does not define.
"""

from elsewhere import plainly
from surface_flows import QUIET, ours

from distrib import distributed

borrowed = distributed(framework="tensorflow", worker=2, local=QUIET)(plainly)
again = distributed(framework="tensorflow", worker=3, local=QUIET)(plainly)
known = ours
