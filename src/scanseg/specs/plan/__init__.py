"""Documents of decisions: data set, network, plan, ensemble."""
