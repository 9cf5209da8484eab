# Absurd requests that take a large search: the reason and the nearest, in bounded time.
# A trillion parameters on one device.
$ orrery plan --for simulate --model kimi-k2 --cluster h100x1 -o none.json > out.txt; echo "exit $?"; head -4 out.txt; sed -n '/^what fits with/,/^$/p' out.txt
> exit 4
>
> kimi-k2 on h100x1, pretrain-4k, with megatron-bridge-2026
>
> nothing fits; the job that needs least memory
> what fits with ... devices
>   layout  ...
> ...
! error: orrery plan: no job of kimi-k2 on h100x1 fits
!   hint: it fits with ... devices

# Ten million tokens a row.
$ sed 's/"sequence_tokens": 4096/"sequence_tokens": 10485760/; s/"document_tokens": 4096/"document_tokens": 10485760/; s/"global_sequences": 1024/"global_sequences": 8/' "$(dirname "$(command -v orrery)")/../../configs/workloads/pretrain-4k.json" > long.json; timeout 60 orrery plan --model qwen3-30b-a3b --cluster h100x64 --workload ./long.json 2> error.txt | sed -n '/^what would/,/^$/p'; cat error.txt
> what would make it fit
>   rows of ... tokens fit (...
> ...
> ...
> error: orrery plan: no plan of qwen3-30b-a3b on h100x64 with pretrain-4k fits

# A job that fits nothing by far is explained in bounded time.
$ echo '{"model": "kimi-k2", "cluster": "h100x8", "stack": "megatron-core-2025", "job": {"layout": {"ep": 8}, "sequence_tokens": 10485760, "global_sequences": 8}}' > far.json; timeout 60 orrery explain far.json | grep -A 2 '^what binds'
> what binds it
>   memory: ... TiB needed of 79.6 GiB, ...
> ...
! warning: this job does not fit the memory of a device
