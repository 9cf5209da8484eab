# https://github.com/NVIDIA-NeMo/RL/issues/903: Qwen 1.5B fine-tuned with 32,768 tokens and CP 2 is
# out of memory even on 64 nodes; CP 4 cures it.
# Our answer: it fits, with 55 GiB, and CP 4 with 32.
# Differs: the trainer keeps several fp32 copies of the logits (152 k words, 9.4 GiB each) for its
# log-probabilities; of pre-training stacks ours keep one. The direction is right: CP 4 saves 23 GiB.
$ echo '{"model_type": "qwen2", "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960, "vocab_size": 151936, "max_position_embeddings": 131072, "max_window_layers": 28, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "tie_word_embeddings": true, "use_sliding_window": false, "hidden_act": "silu"}' > qwen.json

$ for cp in 2 4; do echo '{"model": "qwen.json", "cluster": "h100x512", "stack": "megatron-core-2025", "job": {"layout": {"cp": '$cp'}, "sequence_tokens": 32768, "global_sequences": 1024}}' > cp$cp.json; orrery explain cp$cp.json | grep -E '^  (memory  |logits)'; done
>   memory  ... GiB of 79.6 GiB a device; fits with a probability of ...
>   logits ... 9.41 GiB ...
>   memory  ... GiB of 79.6 GiB a device; fits with a probability of 100.0 %
>   logits ... 4.71 GiB ...
