"""Trainings from a data set or a plan: one, or all folds with what they say together."""
