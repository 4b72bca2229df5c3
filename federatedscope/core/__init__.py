"""The runtime: configuration, data, trainers, aggregators, workers and the loop around them."""
