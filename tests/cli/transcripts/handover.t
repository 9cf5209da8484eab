# A plan as other engines' flags and configs, and back as pins.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin sp=1 --pin ep=2 --pin fsdp_e=2 --pin replicate_e=1 --pin dispatcher=all_to_all --pin micro_batch=1 --pin fsdp_d=4 --pin recompute_layers=2 --pin swap_layers=0 --pin host_optimizer=false --pin gather_layers=2 --pin keep_layers=0 --pin domino=1 --pin exchange_parts=1 -o plan.json >/dev/null 2>&1

$ orrery export plan.json --format megatron -o run.sh
> wrote run.sh: run it with more flags in Megatron-LM's folder
! ...
! warning: megatron does not say gather_layers = 2: each layer is gathered and reduced on its own
! ...
! next: orrery explain plan.json  # why this plan won

$ sed -n '/^LAYOUT/,/^)/p' run.sh; grep '^# not said: gather' run.sh; sh -n run.sh || bash -n run.sh
> LAYOUT_ARGS=(
>   --tensor-model-parallel-size 1
>   --pipeline-model-parallel-size 1
>   --context-parallel-size 1
>   --expert-model-parallel-size 2
>   --expert-tensor-parallel-size 1
>   --moe-token-dispatcher-type alltoall
>   --use-megatron-fsdp
>   --data-parallel-sharding-strategy optim_grads_params
>   --use-distributed-optimizer
>   --no-gradient-accumulation-fusion
>   --ckpt-format fsdp_dtensor
>   --micro-batch-size 1
>   --global-batch-size 8
>   --seq-length 512
>   --recompute-granularity full
>   --recompute-method block
>   --recompute-num-layers 2
> )
> # not said: gather_layers = 2: each layer is gathered and reduced on its own
! ...

# The layout comes back; what the file does not say is searched.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import run.sh -o back.json >/dev/null
! from run.sh (megatron): host_optimizer=false recompute_layers=2 dp=4 tp=1 pp=1 cp=1 sp=1
!   replicate_d=1 fsdp_d=4 ep=2 etp=1 replicate_e=1 fsdp_e=2 expert_inner=ep dispatcher=all_to_all
!   micro_batch=1 accumulation=2
! not used: ...--ckpt-format...
! ...
! wrote back.json
! next: ...
! next: ...

$ for f in plan back; do sed -n '/^  "layout"/,/^  }/p' $f.json > $f.layout; done; cmp plan.layout back.layout

# The document has what is not said, too.
$ orrery export plan.json --format torchtitan -o run.toml --json 2>/dev/null
> {
>   "schema_version": 1,
>   "format": "torchtitan",
>   "file": "run.toml",
>   "not_said": [
> ...
>       "field": "recompute_layers",
>       "value": "2",
>       "why": "all layers are recomputed whole: less memory, slower"
> ...
> }

$ grep -A9 '^.parallelism' run.toml
> [parallelism]
> data_parallel_replicate_degree = 1
> data_parallel_shard_degree = 4
> fsdp_reshard_after_forward = "always"
> tensor_parallel_degree = 1
> pipeline_parallel_degree = 1
> context_parallel_degree = 1
> expert_parallel_degree = 2
> expert_tensor_parallel_degree = 1
>

# A layout that an engine does not have is refused, with what to pin instead, and nothing is written.
$ orrery export plan.json --format deepspeed -o ds.json
! error: plan.json:/layout/ep: ep = 2: DeepSpeed spreads experts over ranks (AutoEP) with ZeRO 0 to 2 alone
!   hint: plan again with --pin ep=1, or --pin fsdp_d=1
? 4

$ orrery export plan.json --format xtuner -o cfg.py
! error: plan.json:/layout/replicate_d: replicate_d = 1: beside expert parallelism dense parameters are replicated over the ranks that share experts, and sharded over the others
!   hint: plan again with --pin replicate_d=2
! error: plan.json:/layout/fsdp_d: fsdp_d = 4: ...
!   hint: plan again with --pin fsdp_d=2
? 4

$ ls *.py ds.json 2>/dev/null
? 2

# Files as others write them.
$ echo '{"train_micro_batch_size_per_gpu": 2, "train_batch_size": "auto", "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}, "fp16": {"enabled": false}, "wall_clock_breakdown": true}' > ds.json; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import ds.json --pin ep=1 -o ds-plan.json >/dev/null
! from ds.json (deepspeed): host_optimizer=true dp=4 tp=1 pp=1 cp=1 sp=1 ep=1 etp=1 micro_batch=2
!   accumulation=1
! not used: /train_batch_size (ds.json:/train_batch_size): 'auto': the launching program decides
! not used: /zero_optimization/stage (ds.json:/zero_optimization/stage): a plan shards parameters
!   too, or nothing: left to the search
! not used: /wall_clock_breakdown: none of the layout's
! ...
! wrote ds-plan.json
! ...

# Axes that no plan of the engine has, values that cannot be, pins that say otherwise: all with their places.
$ printf 'TP=2\ntorchrun --nproc_per_node 4 pretrain_gpt.py \\\n  --tensor-model-parallel-size $TP --micro-batch-size 1\n' > tp.sh; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import tp.sh
! error: tp.sh:3: tp = 2: a plan of the engine has no such axis
!   hint: plan with --for simulate, or set it to 1 in a copy of the file
! error: tp.sh:3: etp = 2: ...
!   hint: ...
? 4

$ printf 'ep_size = 3\nfsdp_cfg = FSDPConfig(ep_size=ep_size)\n' > cfg.py; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import cfg.py
! error: cfg.py:2: 8 experts do not divide by ep 3
!   hint: take a divisor of the experts
? 3

$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import run.sh --pin ep=4
! error: --pin ep: is 4, but run.sh:... says 2
!   hint: drop the pin, or change the file
? 2

$ echo hello > hello.txt; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import hello.txt
! error: hello.txt: is no configuration of a known engine
!   hint: known: flags of Megatron-LM, torchtitan's TOML, XTuner V1's Python or JSON, DeepSpeed's JSON
? 3

$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --import absent.sh
! error: absent.sh: cannot be read: No such file or directory
? 5

$ cp plan.json kept.json; orrery export plan.json --format megatron -o plan.json; cmp plan.json kept.json
! error: --out: plan.json would replace what this command reads
!   hint: name another file after -o
