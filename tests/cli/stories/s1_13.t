# https://github.com/simplescaling/s1/issues/13: Qwen 32B fine-tuned by FSDP with sequences of 32,768
# tokens is out of memory on 16 H100, gradient checkpointing on. The authors cut them to 20,000.
# Our answer: half of the memory is the logits; shorter sequences fit (or sequences split over
# devices). Agrees; the longest that fits for sure is 8,192 of those tried, and 20,000 "may not fit".
$ echo '{"model": "qwen3-32b", "cluster": "h100x16", "stack": "hf-transformers", "job": {"sharding": "parameters", "recompute": {"full": true}, "sequence_tokens": 32768, "global_sequences": 16}}' > job.json

$ orrery explain job.json
>
> qwen3-32b on h100x16, with hf-transformers
> ...
> what binds it
>   memory: ... needed of 79.6 GiB, most of it logits (... %) and dense layers (... %), ...
> ...
> single changes after which it fits with a probability of 99 %, smallest first
> ...
>   sequences of 8192 tokens, 4 times as many ... fits
> ...
! warning: this job does not fit the memory of a device

$ sed 's/32768/20000/' job.json > short.json; orrery explain short.json --json 2>/dev/null | grep '"verdict"'
>   "verdict": "may not fit",
