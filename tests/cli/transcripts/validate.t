# Published rows, predicted and judged. Figures are made up.
$ row() { printf '{"id": "%s", "model": {"name": "m", "layers": 32, "hidden": 4096, "ffn_hidden": 11008, "heads": 32, "kv_heads": 32, "head_dim": 128, "vocab": 32000, "seq_len": 4096, "attention": "mha", "gated_mlp": true, "tied_embeddings": false}, "cluster": {"gpu": "%s", "gpus": 8, "gpus_per_node": 8, "intra_node_bw_GBps": 900}, "plan": {"dp": 8, "tp": 1, "pp": 1, "cp": 1, "sp_ulysses": 1, "zero_stage": 1, "micro_batch": 1, "global_batch": %s, "recompute": "none", "precision": "bf16", "sequence_parallel": false, "extra": {"framework": "NeMo 24.07"}}, "measured": {"step_time_s": 2.5, "peak_mem_gb": 60}}' "$1" "$2" "$3"; }; { printf '{"source": {"title": "made up", "date": "2024-07"}, "rows": ['; row a H100-80GB 64; printf ', '; row b H100-80GB null; printf ', '; row c Abacus 64; printf ']}'; } > made_up.json

$ orrery validate made_up.json
>
> 3 rows of 1 source: 1 predicted, 1 judged, 2 refused
>   step             median error ...
>   mean of sources  ...
>   interval         ...
>   memory           median error ... of 1 row; ... of 1 that ran should not fit
>   out of memory    no row says so
>   decisions        0 groups: ...
>   parameters       ... fitted values
>
> by source: errors are ln(predicted / measured)
>   source    rows  refused ...
>   made_up      3        2 ...
>   all rows     3        2 ...
> ...
> interval by distance from the nearest measured shape
>   doublings ...
> ...
> why rows are refused (2 of 2)
>   rows
>      1  cluster.gpu: ...'Abacus'...
>      1  plan.global_batch: is missing
! next: orrery list parameters  # what is free to fit

$ orrery validate made_up.json --json
> {
>   "schema_version": 1,
>   "summary": {
>     "rows": 3,
>     "predicted": 1,
>     "judged": 1,
>     "refused_rows": 2,
> ...
>   "rows": [
>     {
>       "id": "a",
> ...
>       "predicted_step_s": ...,
>       "p10_s": ...,
>       "p90_s": ...,
>       "distance": ...,
>       "measured_step_s": 2.5,
>       "predicted_mem_gib": ...,
>       "measured_mem_gb": 60.0,
> ...
>       "fits": ...,
>       "p_fits": ...,
>       "refused": null,
>       "completed": []
>     },
>     {
>       "id": "b",
> ...
>       "predicted_step_s": null,
> ...
>           "field": "plan.global_batch",
>           "reason": "is missing"
> ...
> }

# Of one source nothing is left to fit to: its rows are predicted by the priors.
$ orrery validate made_up.json --leave-out source -o page.md > out.txt; grep parameters out.txt
>   parameters       of fits that have not seen the row's source
! wrote page.md
! next: ...

$ orrery validate made_up.json --parameters none | grep parameters
>   parameters       priors, nothing is fitted
! next: ...

$ orrery validate made_up.json --fit fitted.json > out.txt; grep -c '"owner"' fitted.json
> 1...
! wrote fitted.json
! next: ...

$ orrery validate made_up.json --parameters fitted.json | grep parameters
>   parameters       1... fitted values
! next: ...

$ sed 's/"stack"/"stock"/' fitted.json > wrong.json; orrery validate made_up.json --parameters wrong.json
! error: wrong.json:/values/.../name: 'host_per_kernel_s' is no free parameter of a stock
!   hint: orrery list parameters
! ...
? 3

$ orrery validate made_up.json --leave-out rows
! error: --leave-out: 'rows' cannot be left out
!   hint: --leave-out source, or --leave-out device
? 2

$ orrery validate made_up.json -o made_up.json
! error: ...made_up.json...
! ...
? 2

# All that is wrong, in all files.
$ sed 's/"layers": 32/"layers": "many"/; s/"gpus": 8/"gpus": -8/' made_up.json > bad.json; echo '{"rows": []}' > none.json; orrery validate bad.json none.json
! error: bad.json:/rows/0/model/layers: a whole number expected, found a string: "many"
! error: bad.json:/rows/0/cluster/gpus: is -8, not between 1 and 16777216
! error: none.json:/source: is missing
? 3

$ orrery validate absent.json
! error: absent.json: cannot be read: No such file or directory
? 5

$ orrery list parameters
> ...
> exposed_share ... of a stack: of what is overlapped, the part that is not hidden; 0 to 1,...
> ...

# Each fitted value with how far it may move before the rows, and its prior, speak against it.
$ mkdir -p own/parameters && cp fitted.json own/parameters/published.json; ORRERY_CONFIGS=own orrery list parameters | grep -A1 '^product '
> product ... of a device: of the 16 bit peak, ...
>   hopper ... (... to ...), 1 row

$ orrery list stacks
> colossal-ai ...
> deepspeed-2025 ...
> ...
> deepspeed-zero3-2021 ...
> ...
> megatron-lm-2021 ...
> megatron-lm-2023 ...
> megatron-lm-2025 ...
> mindspeed ...
