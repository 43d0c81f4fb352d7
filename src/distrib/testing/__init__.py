"""
What tests of backends, engines and jobs are written with; needs the extra ``distrib[testing]``.

:mod:`distrib.testing.strategies` draws jobs and all that they are made of for Hypothesis.
"""
