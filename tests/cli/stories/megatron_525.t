# https://github.com/NVIDIA/Megatron-LM/issues/525: GPT-2 of 774 M on one V100 of 32 GB is out of
# memory (28.8 GiB allocated, 786 MiB more asked for: fp32 logits of 4 sequences), while an
# estimator says 23.3 GB. No flash attention on that device.
# Our answer: scores of attention that are kept: 36.6 GiB; a micro-batch of 1, or the core of
# attention run again. Agrees.
$ echo '{"name": "v100x1", "devices_per_node": 1, "devices": 1, "device": {"name": "v100-sxm-32", "family": "volta", "peak_bf16": "125 TFLOP/s", "peak_fp32": "15.7 TFLOP/s", "peak_fp64": "7.8 TFLOP/s", "memory_bandwidth": "900 GB/s", "memory": "31.74 GiB", "reserved": "1 GiB", "launch": "5 us", "host_bandwidth": "12 GB/s", "efficiency": {"gemm": [[1e9, 0.2], [1e12, 0.7]], "grouped": [[1e9, 0.2], [1e12, 0.6]], "attention": [[1e9, 0.2], [1e12, 0.5]], "memory": [[65536, 0.05], [1e9, 0.85]]}}, "tiers": [{"name": "nvlink", "bandwidth": "150 GB/s", "latency": "2 us"}], "host_memory": "256 GB"}' > v100.json

$ echo '{"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20, "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50304, "n_inner": 5120, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05}' > gpt2-large.json

$ echo '{"model": "gpt2-large.json", "cluster": "v100.json", "stack": "megatron-lm-2023", "job": {"layout": {"micro_batch": 4}, "sharding": "none", "precision": "fp16", "sequence_tokens": 1024, "global_sequences": 8}}' > job.json

$ orrery explain job.json
>
> gpt2-large on v100x1, with megatron-lm-2023
> ...
> what binds it
>   memory: ... needed of 31.7 GiB, most of it dense layers (... %) and optimizer states (... %),
> ...
> single changes after which it fits with a probability of 99 %, smallest first
>   change ...
>   micro-batch 1 instead of 4 ... fits
>   recompute core_attention instead of none ... fits
>   flash attention ... fits
> ...
! warning: this job does not fit the memory of a device
