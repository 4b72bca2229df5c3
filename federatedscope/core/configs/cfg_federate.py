"""Keys of the federation: clients, rounds, methods, aggregation."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section, alike

__all__ = ["SECTIONS"]

# fmt: off

_FEDERATE = (
    Key("method", "FedAvg", "Federated method, in any case: fedavg, fedsa, ffa, fedopt, local,"
        " global, or one that an extension registers."),
    Key("mode", "standalone", "standalone: all clients in this process; distributed: one per"
        " process.", choices=("standalone", "distributed")),
    Key("client_num", 0, "Number of clients; 0 takes as many as the data set has."),
    Key("client_idx_for_local_train", 0, "Train only on the data of this client; 0 for all."),
    Key("sample_client_num", -1, "Clients that take part in a round; -1 for all."),
    Key("sample_client_rate", -1.0, "Share of the clients that takes part in a round; wins over"
        " sample_client_num when positive."),
    Key("sampler", "uniform", "How the clients of a round are drawn: uniform."),
    Key("unseen_clients_rate", 0.0, "Share of the clients that never trains and is only"
        " evaluated."),
    Key("untrained_clients", [], "Numbers of clients that never train, weigh nothing and are only"
        " evaluated; those without training rows are added."),
    Key("total_round_num", 50, "Number of rounds."),
    Key("freeze_A", False, "Keep every LoRA A at its common random start and train B only"
        " (FFA-LoRA)."),
    Key("shared_module", False, "Server and clients are one module and see each other's personal"
        " tensors; only to reproduce numbers released with that behaviour."),
    Key("share_local_model", False, "Accepted; clients always share one frozen backbone here and"
        " keep their own adapters."),
    Key("client_memory_mb", 4096, "Memory for the clients' adapters in MiB; beyond it the least"
        " recently used go to disk, or are dropped where the next download replaces them anyway."),
    Key("online_aggr", False, "Accepted; aggregation is streamed client by client anyway."),
    Key("ignore_weight", False, "Give every client the same weight in the mean."),
    Key("data_weighted_aggr", False, "Accepted; see aggregator.weights."),
    Key("make_global_eval", False, "Evaluate the server's model on the server's data instead of"
        " each client's."),
    Key("merge_test_data", False, "Evaluate on all clients' test rows together; turns on"
        " make_global_eval."),
    Key("merge_val_data", False, "The same for the validation rows; needs merge_test_data."),
    Key("save_to", "", "Path of the checkpoint of the aggregated model; empty writes none."),
    Key("save_freq", -1, "Rounds between checkpoints; -1 for the last and best only."),
    Key("save_client_model", False, "Also save each client's adapter."),
    Key("restore_from", "", "Checkpoint to start from."),
    Key("join_in_info", [], "What the server asks a client for when it joins."),
    Key("use_diff", False, "Exchange of differences; needed by search methods outside this"
        " project."),
    Key("use_ss", False, "Secret sharing; outside this project."),
    Key("process_num", 1, "Processes of a simulation; one here."),
    Key("master_addr", "127.0.0.1", "Address of the process group; used with process_num > 1."),
    Key("master_port", 29500, "Port of the process group; used with process_num > 1."),
    Key("resource_info_file", "", "Device speeds for simulated delays; outside this project."),
    *alike("Heterogeneous text tasks (ATC); outside this project.", atc_vanilla=False,
           atc_load_from=""),
)

_DISTRIBUTE = (
    Key("use", False, "Run server and clients as processes that talk over the network."),
    Key("role", "client", "What this process is: server or client."),
    Key("server_host", "0.0.0.0", "Address of the server."),
    Key("server_port", 50050, "Port of the server."),
    Key("client_host", "0.0.0.0", "Address of this client."),
    Key("client_port", 50050, "Port of this client."),
    Key("data_file", "data", "File with this participant's data."),
    Key("data_idx", -1, "Which client's part of a common data set this process owns; -1 for all."),
    Key("grpc_max_send_message_length", 314572800, "Largest message sent, in bytes."),
    Key("grpc_max_receive_message_length", 314572800, "Largest message received, in bytes."),
    Key("grpc_enable_http_proxy", False, "Whether gRPC goes through the HTTP proxy."),
    Key("grpc_compression", "nocompression", "Compression of messages: nocompression, deflate or"
        " gzip."),
)

_AGGREGATOR = (
    Key("robust_rule", "fedavg", "How the updates are combined: the mean, or a rule that tolerates"
        " faulty clients.",
        choices=("fedavg", "krum", "median", "trimmedmean", "bulyan", "normbounding")),
    Key("byzantine_node_num", 0, "Number of faulty clients that the robust rule is to tolerate."),
    Key("weights", "rows", "Weights of the mean: rows a client owns, samples it processed this"
        " round, or uniform.", choices=("rows", "processed", "uniform")),
    Key("num_agg_groups", 1, "Groups of clients (ATC); outside this project."),
    Key("num_agg_topk", [], "Neighbours per group (ATC); outside this project."),
    Key("inside_weight", 1.0, "Weight inside a group (ATC); outside this project."),
    Key("outside_weight", 0.0, "Weight outside a group (ATC); outside this project."),
)

_PERSONALIZATION = (
    Key("local_param", [], "Keywords; parameters whose name contains one stay at the client."),
    Key("head", "auto", "The classification head: shared (trained and averaged), local (trained,"
        " stays at the client), frozen (nobody trains its common random start), or the method's"
        " own rule.", choices=("auto", "shared", "local", "frozen")),
    Key("share_non_trainable_para", False, "Also send parameters that are not trained."),
    Key("local_update_steps", -1, "Steps for the personal model; -1 takes"
        " train.local_update_steps."),
    Key("lr", 0.0, "Learning rate of the personal model; 0 takes train.optimizer.lr."),
    Key("regular_weight", 0.1, "Strength of the pull towards the global model (Ditto, pFedMe)."),
    Key("K", 5, "Inner steps (pFedMe)."),
    Key("beta", 1.0, "Moving-average factor (pFedMe)."),
    Key("lr_feature", 0.1, "Learning rate of the feature extractor (FedRep)."),
    Key("lr_linear", 0.1, "Learning rate of the head (FedRep)."),
    Key("epoch_feature", 1, "Epochs for the feature extractor (FedRep)."),
    Key("epoch_linear", 2, "Epochs for the head (FedRep)."),
    Key("weight_decay", 0.0, "Weight decay (FedRep)."),
)

_FEDOPT = (
    Key("use", False, "Apply the mean update with an optimizer at the server (FedOpt)."),
    Key("annealing", False, "Lower the server's learning rate in steps."),
    Key("annealing_step_size", 2000, "Rounds between two such steps."),
    Key("annealing_gamma", 0.5, "Factor of each step."),
)

SECTIONS = (
    Section("federate", "Clients, rounds and the method", _FEDERATE),
    Section("distribute", "Server and clients on several machines (planned)", _DISTRIBUTE),
    Section("aggregator", "How the server combines updates", _AGGREGATOR),
    Section("aggregator.BFT_args", "Arguments of the robust rule", free=True),
    Section("personalization", "What stays at the client", _PERSONALIZATION),
    Section("fedopt", "An optimizer at the server", _FEDOPT),
    Section("fedopt.optimizer", "That optimizer and its own arguments", (
        Key("type", "SGD", "Reddi et al.'s FedAdagrad, FedYogi or FedAdam, which have no bias"
            " correction (arguments betas, [0.9, 0.99], and tau, 0.001); or the name of a"
            " torch.optim class, whose Adam has one."),
        Key("lr", 0.01, "Learning rate at the server."),
    ), free=True),
    Section("fedprox", "A proximal term in the clients' loss", (
        Key("use", False, "Add mu/2 times the squared distance to the global model."),
        Key("mu", 0.0, "Strength of the term."),
    )),
)
