"""The frontier: bias against spread of every estimator and setting, exact by enumeration."""
