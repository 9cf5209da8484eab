# Jobs over all axes as other engines' flags and configs, and back as pins.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tp=2 --pin sequence_parallel=true --pin pp=2 --pin virtual_stages=3 --pin stage_layers=even --pin cp=2 --pin exchange=ring --pin sharding=optimizer --pin fsdp_d=4 --pin recompute=norm+core_attention --pin precision=fp8 --pin micro_batch=1 -o job.json >/dev/null 2>&1; orrery export job.json --format megatron -o run.sh
> wrote run.sh: run it with more flags in Megatron-LM's folder
! next: orrery simulate job.json  # what is predicted of this job

$ sed -n '2,3p; /^LAYOUT/,/^)/p; /^export/p' run.sh; bash -n run.sh
> # llama-3-8b on h100x16 with megatron-bridge-2026
> # layout: tp 2, sequence parallel | cp 2, ring | pp 2 x 3, interleaved | dp 2, optimizer over 4 | ...
> LAYOUT_ARGS=(
>   --tensor-model-parallel-size 2
>   --sequence-parallel
>   --pipeline-model-parallel-size 2
>   --pipeline-model-parallel-layout "Et*5|(t*6|)*2(t*5|)*2t*5L"
>   --context-parallel-size 2
>   --cp-comm-type p2p
>   --use-distributed-optimizer
>   --micro-batch-size 1
>   --global-batch-size 1024
>   --seq-length 4096
>   --bf16
>   --fp8-format e4m3
>   --fp8-recipe blockwise
>   --recompute-granularity selective
>   --recompute-modules core_attn layernorm
>   --overlap-grad-reduce
>   --overlap-param-gather
>   --tp-comm-overlap
>   --grad-reduce-in-bf16
>   --cross-entropy-loss-fusion --cross-entropy-fusion-impl te
> )
> export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}"

# The same job comes back.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --import run.sh -o back.json >/dev/null
! from run.sh (megatron): tp=2 sequence_parallel=true pp=2 schedule=interleaved virtual_stages=3
!   stage_layers=even cp=2 exchange=ring dp=2 sharding=optimizer fsdp_d=4 replicate_d=1
!   recompute=norm+core_attention precision=fp8 micro_batch=1
! not used: --overlap-grad-reduce, ...
! ...
! wrote back.json
! next: ...

$ for f in job back; do sed -n '/^  "job"/,/^  }/p' $f.json > $f.axes; done; cmp job.axes back.axes

# What an engine does not have is refused, with what to pin instead, and nothing is written.
$ orrery export job.json --format xtuner -o cfg.py
! error: job.json:/job/layout/pp: pp = 2: XTuner has no pipeline
!   hint: plan again with --pin pp=1
! error: job.json:/job/layout/tp: tp = 2: no layer of XTuner is tensor-parallel but experts
!   hint: plan again with --pin tp=1
! error: job.json:/job/exchange: exchange = ring: XTuner shares sequences by exchanging heads (Ulysses) alone
!   hint: plan again with --pin exchange=all_to_all, or cp=1
! error: job.json:/job/sharding: sharding = optimizer: XTuner shards parameters too (FSDP), always
!   hint: plan again with --pin sharding=parameters
? 4

$ orrery export job.json --format torchtitan -o run.toml
! error: job.json:/job/sharding: sharding = optimizer: torchtitan shards parameters too (FSDP), or nothing
!   hint: plan again with --pin sharding=parameters
? 4

$ ls cfg.py run.toml 2>/dev/null
? 2

# torchtitan's pipeline takes the whole step in one pass.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --stack fsdp2-compiled --pin tp=2 --pin sequence_parallel=true --pin pp=2 --pin schedule=1f1b --pin virtual_stages=1 --pin stage_layers=even --pin cp=2 --pin exchange=all_gather --pin sharding=parameters --pin fsdp_d=4 --pin recompute=ops --pin precision=fp8 --pin micro_batch=1 -o titan.json >/dev/null 2>&1; orrery export titan.json --format torchtitan -o run.toml 2>/dev/null; sed -n '/^.model/,$p' run.toml
> wrote run.toml: it is for torchtitan: --job.config_file
> [model]
> converters = ["quantize.linear.float8"]
>
> [quantize.linear.float8]
> filter_fqns = ["output"]
>
> [training]
> local_batch_size = 512
> global_batch_size = 1024
> seq_len = 4096
> mixed_precision_param = "bfloat16"
> mixed_precision_reduce = "float32"
>
> [parallelism]
> data_parallel_replicate_degree = 1
> data_parallel_shard_degree = 2
> fsdp_reshard_after_forward = "never"
> tensor_parallel_degree = 2
> pipeline_parallel_degree = 2
> pipeline_parallel_schedule = "1F1B"
> pipeline_parallel_microbatch_size = 1
> pipeline_parallel_layers_per_stage = 16
> pipeline_parallel_first_stage_less_layers = 0
> pipeline_parallel_last_stage_less_layers = 0
> context_parallel_degree = 2
> context_parallel_rotate_method = "allgather"
>
> [activation_checkpoint]
> mode = "selective"
> selective_ac_option = "op"

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --stack fsdp2-compiled --import run.toml -o back.json >/dev/null 2>&1; for f in titan back; do sed -n '/^  "job"/,/^  }/p' $f.json > $f.axes; done; cmp titan.axes back.axes

# XTuner's and DeepSpeed's files of one job: figures are of another stack, which is said.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tp=1 --pin pp=1 --pin cp=1 --pin sharding=parameters --pin fsdp_d=16 --pin keeps_gathered=false --pin recompute=full --pin full_layers=32 --pin precision=bf16 --pin micro_batch=2 -o fsdp.json >/dev/null 2>&1; orrery export fsdp.json --format xtuner -o cfg.py --json
> {
>   "schema_version": 1,
>   "format": "xtuner",
>   "file": "cfg.py",
>   "not_said": [
>     {
>       "field": "stack",
>       "value": "megatron-bridge-2026",
>       "why": "figures are of that stack: plan with --stack fsdp2-compiled for this one"
>     }
>   ]
> }
! warning: xtuner does not say stack = megatron-bridge-2026: figures are of that stack: plan with --stack fsdp2-compiled for this one
! ...

$ sed -n '/^fsdp_cfg/,/^)/p; /pack_max/p; /batch_size/p' cfg.py; orrery export fsdp.json --format deepspeed -o ds.json >/dev/null 2>&1; grep -E 'size|steps|stage"' ds.json
> fsdp_cfg = FSDPConfig(
>     ep_size=1,
>     recompute_ratio=1.0,
>     reshard_after_forward=True,
>     param_dtype="bfloat16",
> )
> dataloader_cfg = DataloaderConfig(pack_max_length=8192)
>     global_batch_size=512,
>   "train_batch_size": 1024,
>   "train_micro_batch_size_per_gpu": 2,
>   "gradient_accumulation_steps": 32,
>     "stage": 3,
>     "stage3_prefetch_bucket_size": ...

$ for f in cfg.py ds.json; do orrery plan --for simulate --model llama-3-8b --cluster h100x16 --import $f --pin recompute=full --pin full_layers=32 -o back.json >/dev/null 2>&1; for g in fsdp back; do sed -n '/^  "job"/,/^  }/p' $g.json > $g.axes; done; cmp fsdp.axes back.axes; done

# A published script: what its layout costs here. (Mixtral 8x7B on 32 devices, README of Megatron-Core's experts.)
$ printf 'DISTRIBUTED_ARGS=(--nproc_per_node 8 --nnodes ${NNODES:-4})\nMOE_ARGS=(--num-experts 8 --expert-model-parallel-size 8 --moe-router-topk 2)\nMODEL_PARALLEL_ARGS=(\n  --tensor-model-parallel-size 1\n  --pipeline-model-parallel-size 4\n  --num-layers-per-virtual-pipeline-stage 8\n  --sequence-parallel\n  --use-distributed-optimizer\n)\ntorchrun ${DISTRIBUTED_ARGS[@]} pretrain_gpt.py ${MOE_ARGS[@]} ${MODEL_PARALLEL_ARGS[@]} --micro-batch-size 1 --global-batch-size 1024 --bf16 --seq-length 4096\n' > mixtral.sh; orrery plan --for simulate --model mixtral-8x7b --cluster h100x32 --import mixtral.sh --fit-probability 0.9 -o mixtral.json
>
> mixtral-8x7b on h100x32, pretrain-4k, with megatron-bridge-2026
>   layout  pp 4, 1f1b | ep 8, all_gather | dp 8, optimizer over 8 | micro-batch 1 x 128 | recompute
>           none | bf16
>   step    ...
> ...
! from mixtral.sh (megatron): tp=1 pp=4 schedule=1f1b virtual_stages=1 stage_layers=even cp=1 dp=8
!   ep=8 etp=1 dispatcher=all_gather sharding=optimizer fsdp_d=8 replicate_d=1 recompute=none
!   precision=bf16 micro_batch=1
! wrote mixtral.json
! next: ...

# The world, the model, the batch, the flags among themselves: what does not fit together has its place.
$ orrery plan --for simulate --model mixtral-8x7b --cluster h100x64 --import mixtral.sh
! error: mixtral.sh:1: launches 32 ranks, but the cluster has 64 devices
!   hint: name a cluster of as many: --cluster NAMEx32
? 3

$ orrery plan --for simulate --model qwen3-30b-a3b --cluster h100x32 --import mixtral.sh
! error: mixtral.sh:2: --num-experts is 8, but qwen3-30b-a3b has 128
!   hint: name the model and workload of this file, or mend it
! error: mixtral.sh:2: --moe-router-topk is 2, but qwen3-30b-a3b has 8
!   hint: name the model and workload of this file, or mend it
? 3

$ printf -- '--micro-batch-size 3 --global-batch-size 512\n--pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2\n--pipeline-model-parallel-layout "Et|tL"\n' > odd.sh; orrery plan --for simulate --model llama-3-8b --cluster h100x16 --import odd.sh
! error: odd.sh:3: --pipeline-model-parallel-layout beside --num-virtual-stages-per-pipeline-rank
!   hint: Megatron takes one of them
? 3

$ printf -- '--micro-batch-size 1 --fp16\n' > fp16.sh; orrery plan --for simulate --model llama-3-8b --cluster h100x16 --import fp16.sh
! error: fp16.sh:1: precision 'fp16' ...
!   hint: ...
? 4

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin recompute=norm+attention
! error: --pin recompute: 'norm+attention' is not a value of it
!   hint: one of none, ..., full, or modules as norm+mlp
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --import run.sh --pin tp=4
! error: --pin tp: is 4, but run.sh:8 says 2
!   hint: drop the pin, or change the file
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --import run.sh -o run.sh
! ...
! error: --out: run.sh would replace what this command reads
!   hint: name another file after -o
? 2
