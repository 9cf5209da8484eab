#!/usr/bin/env bash
# Layout of Qwen3-235B-A22B on 256 H100 as Megatron-MoE-ModelZoo publishes it (best_practice/qwen3:
# DISPATCHER=deepep A2A_OVERLAP=1 TP=2 PP=8 VPP=4 EP=32 GBS=2048), with its model's flags:
# https://github.com/yanring/Megatron-MoE-ModelZoo
MODEL_ARGS="
  --num-layers 94
  --hidden-size 4096
  --num-attention-heads 64
  --kv-channels 128
  --group-query-attention --num-query-groups 4
  --num-experts 128
  --moe-ffn-hidden-size 1536
  --moe-router-topk 8
  --seq-length 4096
"
torchrun --nproc_per_node 8 --nnodes 32 pretrain_gpt.py $MODEL_ARGS \
  --tensor-model-parallel-size 2 --sequence-parallel \
  --pipeline-model-parallel-size 8 --num-layers-per-virtual-pipeline-stage 3 \
  --account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split \
  --expert-model-parallel-size 32 --expert-tensor-parallel-size 1 \
  --moe-token-dispatcher-type flex --moe-flex-dispatcher-backend deepep \
  --delay-wgrad-compute --overlap-moe-expert-parallel-comm \
  --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
  --micro-batch-size 1 --global-batch-size 2048 --bf16 --tp-comm-overlap \
  --recompute-granularity selective --recompute-modules moe_act layernorm
