"""Keys of features that are outside this project.

They exist so that configurations which mention them can be read; turning one of the features on
is refused (see :mod:`federatedscope.core.configs.refusals`).
"""

from __future__ import annotations

from federatedscope.core.configs.schema import outside

__all__ = ["SECTIONS"]

# fmt: off

SECTIONS = (
    outside("adapter", "The older adapter switch (llm.adapter replaces it)", use=False, args=[]),
    outside("vertical", "Vertical federated learning", use=False, mode="feature_gathering",
            dims=[5, 10], encryption="paillier", key_size=3072, algo="lr",
            feature_subsample_ratio=1.0, protect_object="", protect_method="", protect_args=[],
            eval_protection="", data_size_for_debug=0),
    outside("attack", "Attacks", attack_method="", target_label_ind=-1, attacker_id=-1,
            edge_path="edge_data/", trigger_path="trigger/", setting="fix", freq=10,
            insert_round=100000, mean=[0.9637], std=[0.1592], trigger_type="edge",
            label_type="dirty", edge_num=100, poison_ratio=0.5, scale_poisoning=False,
            scale_para=1.0, pgd_poisoning=False, pgd_lr=0.1, pgd_eps=2, self_opt=False,
            self_lr=0.05, self_epoch=6, reconstruct_lr=0.01, reconstruct_optim="Adam",
            info_diff_type="l2", max_ite=400, alpha_TV=0.001, alpha_prop_loss=0,
            classifier_PIA="randomforest", inject_round=0, mia_simulate_in_round=20,
            mia_is_simulate_in=False),
    outside("asyn", "Asynchronous rounds", use=False, time_budget=0, min_received_num=2,
            min_received_rate=-1.0, staleness_toleration=0, staleness_discount_factor=1.0,
            aggregator="goal_achieved", broadcast_manner="after_aggregating", overselection=False),
    outside("nbafl", "Differential privacy (NbAFL)", use=False, mu=0.0, epsilon=100.0, w_clip=1.0,
            constant=30.0),
    outside("sgdmf", "Private matrix factorisation (SGDMF)", use=False, R=5.0, epsilon=4.0,
            delta=0.5, constant=1.0),
    outside("quantization", "Quantised messages", method="none", nbits=8),
    outside("fedswa", "Stochastic weight averaging at the server", use=False, freq=10,
            start_rnd=30),
    outside("fedsageplus", "Graphs (FedSage+)", num_pred=5, gen_hidden=128, hide_portion=0.5,
            fedgen_epoch=200, loc_epoch=1, a=1.0, b=1.0, c=1.0),
    outside("gcflplus", "Graphs (GCFL+)", EPS_1=0.05, EPS_2=0.1, seq_length=5, standardize=False),
    outside("flitplus", "Graphs (FLIT+)", tmpFed=0.5, lambdavat=0.5, factor_ema=0.8, weightReg=1.0),
    outside("hpo", "Hyper-parameter search", trial_index=0, working_folder="hpo", ss="",
            num_workers=0, init_cand_num=16, larger_better=False, scheduler="rs",
            metric="client_summarized_weighted_avg.val_loss"),
    outside("hpo.sha", "Hyper-parameter search (successive halving)", elim_rate=3, budgets=[],
            iter=0),
    outside("hpo.pbt", "Hyper-parameter search (population based)", max_stage=5,
            perf_threshold=0.1),
    outside("hpo.fedex", "Hyper-parameter search (FedEx search, not FedEx-LoRA)", use=False, ss="",
            flatten_ss=True, eta0=-1.0, sched="auto", cutoff=0.0, gamma=0.0, diff=False, psn=False,
            pi_lr=0.01),
    outside("hpo.table", "Hyper-parameter search (tables)", eps=0.1, num=27, idx=0),
    outside("hpo.fts", "Hyper-parameter search (Thompson sampling)", use=False, ss="",
            target_clients=[], diff=False, local_bo_max_iter=50, local_bo_epochs=50,
            fed_bo_max_iter=50, ls=1.0, var=0.1, g_var=1e-6, v_kernel=1.0, obs_noise=1e-6, M=100,
            M_target=200, gp_opt_schedule=1, allow_load_existing_info=True),
    outside("hpo.pfedhpo", "Hyper-parameter search (personalised)", use=False, discrete=False,
            train_fl=False, train_anchor=False, ss="", target_fl_total_round=1000),
)
