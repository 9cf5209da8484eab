#!/usr/bin/env bash
# Layout of DeepSeek-V3 on 1024 H100 as Megatron-MoE-ModelZoo publishes it (best_practice/DeepSeekV3:
# A2A_OVERLAP=1 PP=8 VPP=4 TP=2 EP=64 GBS=8192 PR=fp8), with its model's flags:
# https://github.com/yanring/Megatron-MoE-ModelZoo
TP=${TP:-2}
PP=${PP:-8}
EP=${EP:-64}
NNODES=${NNODES:-128}
PARALLEL_ARGS=(
  --tensor-model-parallel-size ${TP}
  --pipeline-model-parallel-size ${PP}
  --pipeline-model-parallel-layout "Et|(tt|)*30mL"
  --expert-model-parallel-size ${EP}
  --expert-tensor-parallel-size 1
  --context-parallel-size 1
  --sequence-parallel
  --use-distributed-optimizer
  --overlap-grad-reduce
  --overlap-param-gather
  --delay-wgrad-compute --overlap-moe-expert-parallel-comm
)
MOE_ARGS=(
  --num-experts 256
  --moe-layer-freq "([0]*3+[1]*58)"
  --moe-ffn-hidden-size 2048
  --moe-shared-expert-intermediate-size 2048
  --moe-router-topk 8
  --moe-grouped-gemm
  --moe-token-dispatcher-type flex --moe-flex-dispatcher-backend deepep
)
MODEL_ARGS=(
  --num-layers 61
  --hidden-size 7168
  --num-attention-heads 128
  --kv-channels 128
  --multi-latent-attention
  --mtp-num-layers 1 --mtp-loss-scaling-factor 0.1
  --seq-length 4096
)
torchrun --nproc_per_node 8 --nnodes ${NNODES} pretrain_gpt.py \
  "${PARALLEL_ARGS[@]}" "${MOE_ARGS[@]}" "${MODEL_ARGS[@]}" \
  --micro-batch-size 1 --global-batch-size 8192 --bf16 \
  --fp8-recipe blockwise --fp8-format e4m3 --fp8-param-gather \
  --recompute-granularity selective --recompute-modules mla_up_proj mlp
