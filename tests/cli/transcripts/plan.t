$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local
>
> qwen3-moe-10m on local-cpu, demo-local (4.1k tokens a step)
>   layout  fsdp ...
> ...
>   step    ... ms  (... to ...)
>   speed   ... tokens/s, ... MFU
>   memory  ... of 2.75 GiB a device (... free)
>   cost    ... per 1000 tokens, ... per million query-key pairs
>
> memory at the peak of the fullest device
>   class ...
> ...
> search
>   ... legal plans, ... bounded, ... replayed, in ...
> ...
>   the best of all layouts, recompute depths with and without swap, places of the moments,
>   prefetch 0 to 2 and chunks of a power of two of rows; other chunk sizes can be pinned
>   then ... replays around the best plans: interleaving, exchange parts, dispatcher, buckets,
>   kept layers, partial recompute: tried, not proved; ...
! ...
! wrote plan.json
! next: orrery simulate plan.json  # where the step goes
! next: orrery train plan.json --data DIR  # run it here

$ ls -A
> plan.json

# The file and the document are the same; --json writes no file that was not asked for.
$ rm plan.json; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --json > printed.json; ls -A
> printed.json

$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --json -o kept.json > both.json; cmp kept.json both.json; grep -E '^  "(schema_version|inputs|layout|chunks|memory_policy|predicted|runners_up|rejected|proof|fits_because)"' kept.json | cut -d: -f1
>   "schema_version"
>   "inputs"
>   "layout"
>   "chunks"
>   "memory_policy"
>   "predicted"
>   "runners_up"
>   "rejected"
>   "proof"
>   "fits_because"
! wrote kept.json

$ rm *.json

# A pin holds.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin ep=2 --json | grep '"ep"' | head -n 1
>     "ep": 2,

# Names that do not exist: all three at once.
$ orrery plan --model qwen3-8c --cluster h80x8 --workload pretrain-4
! error: configs/models: no 'qwen3-8c' here
!   hint: did you mean 'qwen3-8b'?
! error: configs/clusters: ...
!   hint: did you mean 'h800...
! error: configs/workloads: no 'pretrain-4' here
!   hint: did you mean 'pretrain-4k'?
? 3

$ orrery plan --model qwen3-8b --cluster h800x8 --pin epp=2 --pin sp
! error: --pin: 'epp' cannot be pinned
!   hint: did you mean ...
! error: --pin: 'sp' is not NAME=VALUE
!   hint: for example --pin ep=8
? 2

$ cp "$(dirname "$(command -v orrery)")/../../configs/clusters/local-cpu.json" own.json; orrery plan --model qwen3-moe-10m --cluster ./own.json --workload demo-local -o own.json; grep -c devices_per_node own.json; rm own.json
> 1
! error: --out: own.json would replace what this command reads, ./own.json
!   hint: name another file after -o

# A model's own folder may have its plan, again and again.
$ mkdir own; cp "$(dirname "$(command -v orrery)")/../../configs/models/qwen3-moe-10m.json" own/config.json; for i in 1 2; do orrery plan --model ./own --cluster local-cpu --workload demo-local -o own/plan.json > /dev/null 2>&1 && ls own; done
> config.json
> plan.json
> config.json
> plan.json

$ orrery plan --model ./own --cluster local-cpu --workload demo-local -o own/config.json; rm -r own
! error: --out: own/config.json would replace what this command reads, ./own/config.json
!   hint: name another file after -o

$ orrery plan --model qwen3-8b --cluster h800x8 --runners-up many
! error: --runners-up: 'many' is not a number of its range
!   hint: a whole number from 0 to 1000
? 2

# A family that can be simulated, but not run.
$ orrery plan --model deepseek-v3 --cluster h800x64
! error: engine_family: deepseek-v3 is of the family deepseek_v3, which the engine does not run: ...
!   hint: `orrery list models` shows which are simulated only
? 4

# A batch that does not divide; a pin that no rule allows.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin micro_batch=3
! error: ...
! ...
? 4

$ sed 's/"global_sequences": 8/"global_sequences": 6/' "$(dirname "$(command -v orrery)")/../../configs/workloads/demo-local.json" > six.json; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload ./six.json --pin sp=1
! error: ...
! ...
? 4

# Two GPUs are too few for 32 billion parameters, whatever the batch: a small one is searched faster.
$ sed 's/"global_sequences": 1024/"global_sequences": 64/; s/pretrain-4k/rows-64/' "$(dirname "$(command -v orrery)")/../../configs/workloads/pretrain-4k.json" > rows-64.json; orrery plan --model qwen3-32b --cluster h800x2 --workload rows-64.json
>
> does not fit: qwen3-32b on h800x2, rows-64 (262k tokens a step)
>   needed     ... GiB a device, by the plan that needs least
>   usable     75.6 GiB
>   short of   ... GiB
>   that plan  fsdp 2 ...
> ...
> its memory at the peak
> ...
> what would make it fit
>   4 devices fit (... GiB, ... s a step; fsdp 4 ...
> ...
> search
>   ... legal plans, ... bounded, ... replayed, in ...
>   all ... do not fit in memory
! ...
! error: orrery plan: no plan of qwen3-32b on h800x2 with rows-64 fits
? 4

# Where a pin is in the way, it is named first.
$ orrery plan --model qwen3-8b --cluster h800x8 --pin recompute_layers=0 --pin sp=1 --pin micro_batch=8
>
> does not fit: ...
> ...
> what would make it fit
>   without --pin recompute_layers=0 it fits (...
> ...
! ...
! error: orrery plan: no plan of qwen3-8b on h800x8 with pretrain-4k fits
? 4

$ orrery plan --model qwen3-32b --cluster h800x2 --workload rows-64.json --json -o never.json
> {
>   "schema_version": 1,
>   "feasible": false,
>   "shortage": {
> ...
>   "nearest_feasible": {
>     "change": "... devices",
>     "layout": {
> ...
>     "peak_bytes": ...
>     "step_s": ...
>   }
> }
! ...
! error: orrery plan: no plan of qwen3-32b on h800x2 with rows-64 fits
!   hint: ...
? 4

$ orrery plan --model qwen3-8b --cluster h800x8 -o no/such/folder/plan.json
! error: no/such/folder/plan.json: there is no folder no/such/folder
!   hint: mkdir -p no/such/folder
? 5

# A full disk: no file, and an older one stays as it was.
$ echo old > plan.json; sh -c 'ulimit -f 1; exec orrery plan --model qwen3-dense-5m --cluster local-cpu --workload demo-local > /dev/null'
! ...
! error: plan.json: cannot be written: File too large
!   hint: make room there, or choose another place with -o
? 5

$ cat plan.json; ls -A
> old
> plan.json
> rows-64.json
> six.json
