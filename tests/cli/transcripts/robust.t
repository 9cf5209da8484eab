# What cannot be, for both purposes of a plan: the reason, and the nearest that can.
# No devices.
$ orrery plan --model qwen3-8b --cluster h100x0
! error: h100x0: the number of devices is out of range
!   hint: 1 to 1048576
? 3

$ orrery plan --for simulate --model qwen3-8b --cluster h100x0
! error: h100x0: the number of devices is out of range
!   hint: 1 to 1048576
? 3

# 13 nodes: a batch of 1024 divides over none of it whole; other axes may.
$ orrery plan --model qwen3-8b --cluster h100x104
! error: batch_divides: ...
!   hint: a batch of 936 or 1040 sequences divides over 104 devices
! error: the nearest that fits: a batch of 936 sequences (... a step)
!   hint: ...
? 4

$ orrery plan --for simulate --model qwen3-8b --cluster h100x8008
! error: orrery plan: no job is legal; layouts that each rule removed: batch ...
!   hint: for example 4096 devices
! error: the nearest that fits: a batch of 8008 sequences (... a step)
!   hint: dp 8008, ...
? 4

# 30 billion parameters on one device.
$ orrery plan --model qwen3-30b-a3b --cluster h100x1 2> /dev/null | sed -n '/^what would/,/^$/p'
> what would make it fit
>   ... devices fit (...
> ...

# Ten million tokens a row.
$ sed 's/"sequence_tokens": 4096/"sequence_tokens": 10485760/; s/"document_tokens": 4096/"document_tokens": 10485760/; s/"global_sequences": 1024/"global_sequences": 8/' "$(dirname "$(command -v orrery)")/../../configs/workloads/pretrain-4k.json" > long.json; orrery plan --for simulate --model llama-3-8b --cluster h100x64 --workload ./long.json -o none.json > out.txt; echo "exit $?"; grep '^what fits' out.txt
> exit 4
> what fits with ... devices
! error: orrery plan: no job of llama-3-8b on h100x64 fits
!   hint: it fits with ... devices

# Fewer sequences than devices: one purpose shares them out by tokens, as does the other.
$ sed 's/"global_sequences": 1024/"global_sequences": 2/' "$(dirname "$(command -v orrery)")/../../configs/workloads/pretrain-4k.json" > two.json; orrery plan --model qwen3-8b --cluster h100x16 --workload ./two.json --runners-up 0 -o two-plan.json | grep "^  layout"
>   layout  ...sp ...
! ...

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --workload ./two.json -o two-job.json | grep "^  layout  "
>   layout  ...
! ...

# One layer, pins that contradict each other, the batch or the heads.
$ sed 's/"num_hidden_layers": 28/"num_hidden_layers": 1/' "$(dirname "$(command -v orrery)")/../../configs/models/qwen3-0.6b.json" > one.json; orrery plan --for simulate --model ./one.json --cluster h100x8 --pin pp=4
! error: --pin: no job is legal; layouts that each rule removed: ... layers_divide ...
!   hint: leave a pin out
! error: the nearest that fits: without --pin pp=4 (... a step)
!   hint: dp 8, ...
? 4

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tp=4 --pin dp=16
! error: --pin: no job is legal; layouts that each rule removed: ...
!   hint: leave a pin out
! error: the nearest that fits: without --pin tp=4 (... a step)
!   hint: dp 16, ...
? 4

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --workload ./two.json --pin tp=1 --pin cp=1 --pin sp=1 --pin pp=1
! error: --pin: no job is legal; layouts that each rule removed: batch ...
!   hint: leave a pin out
! error: the nearest that fits: without --pin ... (... a step)
!   hint: ...
? 4

$ orrery plan --model qwen3-8b --cluster h100x16 --pin sp=3
! ...
! error: heads_divide: 32 heads do not divide by sp 3
!   hint: drop or change the pin
! ...
! error: the nearest that fits: without the pins (... a step)
!   hint: ...
? 4

# Numbers that no product of two holds.
$ orrery plan --model qwen3-8b --cluster h100x16 --pin micro_batch=9000000000000000000
! error: --pin micro_batch: '9000000000000000000' is not a whole number of at most 16777216
!   hint: --pin ep=8
? 2

$ orrery plan --model qwen3-8b --cluster h100x16 --pin micro_batch=16777216 --pin accumulation=16777216
! error: ...
! ...
? 4

$ orrery plan --for simulate --model qwen3-8b --cluster h100x16 --pin tp=9000000000000000000
! error: --pin tp: '9000000000000000000' is not a whole number from 1 to 16777216
!   hint: --pin tp=4
? 2

# Jobs by hand that no cluster could run, or that ask for what is no number.
$ echo '{"model": "qwen3-8b", "cluster": "h100x16", "stack": "generic", "job": {"layout": {"tp": 9000000000000000000}, "sequence_tokens": 4096, "global_sequences": 64}}' > huge.json; orrery explain huge.json
! error: huge.json:/job: rule range: tp is 9000000000000000000, not between 1 and 1048576
! ...
? 3

$ echo '{"model": "qwen3-8b", "cluster": "h100x16", "stack": "generic", "job": {"layout": {"tp": 0}, "sequence_tokens": -4096, "global_sequences": 0.5}}' > none.json; orrery explain none.json
! error: none.json:/job/layout/tp: ...
! error: none.json:/job/sequence_tokens: ...
! error: none.json:/job/global_sequences: ...
? 3
