"""Server rules: how the uploads of a round become the server's state, one file per rule."""

from federatedscope.core.aggregators.aggregator import Aggregator
from federatedscope.core.aggregators.bulyan_aggregator import BulyanAggregator
from federatedscope.core.aggregators.clients_avg_aggregator import (
    ClientsAvgAggregator,
    OnlineClientsAvgAggregator,
)
from federatedscope.core.aggregators.fedopt_aggregator import FedOptAggregator
from federatedscope.core.aggregators.krum_aggregator import KrumAggregator
from federatedscope.core.aggregators.median_aggregator import MedianAggregator
from federatedscope.core.aggregators.no_communication_aggregator import NoCommunicationAggregator
from federatedscope.core.aggregators.normbounding_aggregator import NormboundingAggregator
from federatedscope.core.aggregators.trimmedmean_aggregator import TrimmedmeanAggregator
from fedlora.errors import AggregationError

__all__ = [
    "AggregationError",
    "Aggregator",
    "BulyanAggregator",
    "ClientsAvgAggregator",
    "FedOptAggregator",
    "KrumAggregator",
    "MedianAggregator",
    "NoCommunicationAggregator",
    "NormboundingAggregator",
    "OnlineClientsAvgAggregator",
    "TrimmedmeanAggregator",
]
