"""Documents of decisions: data set, plan, network and ensemble."""
