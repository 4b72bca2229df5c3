"""The runtime: configuration, data, trainers, aggregators, workers and the loop that connects them."""
