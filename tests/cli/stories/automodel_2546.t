# https://github.com/NVIDIA-NeMo/Automodel/pull/2546: Hy3-preview (295 B, 192 experts) is fine-tuned
# with PP 4, EP 8 on 32 H100 and dies in Adam's first step at 74.7 GiB; 64 devices with PP 4 do as
# well; PP 8, EP 8 on 64 trains at 42 GiB.
# Our answer: states of 16 bytes a parameter need more than 64 devices: it fits on 128.
# Differs: that run keeps weights, gradients and moments in bf16 (8 bytes a parameter: 74 GiB and
# 37 GiB a device are what was seen), which no stack of ours does. What fails is the same.
$ echo '{"model_type": "dots1", "hidden_size": 4096, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 120832, "intermediate_size": 13312, "first_k_dense_replace": 1, "n_routed_experts": 192, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 1536, "moe_layer_freq": 1, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.826, "rms_norm_eps": 1e-05, "rope_theta": 11158840.0, "max_position_embeddings": 262144, "tie_word_embeddings": false, "hidden_act": "silu", "attention_bias": false, "sliding_window": null}' > hy3.json

$ echo '{"model": "hy3.json", "cluster": "h100x32", "stack": "fsdp2-eager", "job": {"layout": {"pp": 4, "ep": 8}, "sharding": "parameters", "recompute": {"full": true}, "dispatcher": "deduplicated", "sequence_tokens": 512, "global_sequences": 64}}' > job.json

$ orrery explain job.json | grep -A 3 -E '^(what binds|no layout fits)'
> what binds it
>   memory: ... needed of 79.6 GiB, most of it optimizer states (... %) and gathered (... %),
> ...
> --
> no layout fits; what fits with 128 devices
> ...
! warning: this job does not fit the memory of a device
