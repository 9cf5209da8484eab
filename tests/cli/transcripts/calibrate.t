# Calibration from outputs of measuring tools. Figures are made up.
# Two devices of one host: 12 us where bytes do not matter, 8 MB sent in 40 us above that.
$ { echo '# Collective test starting: all_gather_perf'; for r in 0 1; do echo "#  Rank  $r Group  0 Pid  7 on  node-a device  $r [0000:0$r:00] Made Up"; done; echo '#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong'; } > head.out

$ { cat head.out; for s in 64 1024; do echo "$s 8 float none -1 12.00 0.01 0.00 0 12.00 0.01 0.00 0"; done; echo '16000000 2000000 float none -1 52.00 307.69 153.85 0 52.00 307.69 153.85 0'; echo '# Avg bus bandwidth    : 51.28'; } > nccl.out

$ orrery calibrate --from nccl.out
! error: orrery calibrate: --from has no cluster to begin with
!   hint: --cluster NAME says which devices and links were measured
? 2

$ orrery calibrate --from nccl.out --cluster h100x8 -o cal.json
> 
> what was read
>   file      of          device   samples
>   nccl.out  nccl-tests  Made Up        6
> 
> entries that samples moved most (3 of 3)
>   entry                        samples  measured  error before  after
>   tiers/0/efficiency/gather/0        6   80.0 us       -53.3 %  0.0 %
>   tiers/0/latency                    6   42.0 us       -48.3 %  0.0 %
>   device/launch                      6   30.0 us       -48.3 %  0.0 %
! wrote cal.json
! next: orrery plan ... --cluster cal.json ...

# 8 MB in 40 us are 200 GB/s, of 450; 12 us are the launch of 5 us and 7 of latency.
$ orrery check cal.json
> ...
> cal.json  cluster  ok  ...

$ grep -e '"latency"' -e 0.444 cal.json
>       "latency": "7... us",
>           [8..., 0.444...]

# A probe's JSON sets the device; the words after --from are known by their content.
$ echo '{"schema_version": 1, "device": "made up", "samples": [{"op": "launch", "seconds": 3e-6}]}' > probe.txt

$ orrery calibrate --from nccl.out probe.txt --cluster h100x8 -o both.json > /dev/null 2>&1 && grep '"launch"' both.json
> ..."launch": "3 us",...

$ orrery calibrate --from probe.txt --cluster h100x8 -o both.json --json
> {
>   "schema_version": 1,
>   "file": "both.json",
>   "entries": [
>     {
>       "entry": "device/launch",
>       "samples": 1,
> ...
>       "error_before": 0.66...,
>       "error_after": 0.0,
> ...
>       "source": ["probe.txt"]
> ...
>   "runs": [],
>   "files": [
> ...
> }
! wrote both.json
! ...

# What is wrong stands with its line; nothing is written, in all files at once.
$ sed 's/307.69/30.77/' nccl.out > bad.out; echo '{"schema_version": 1, "samples": [{"op": "gem", "seconds": 1}]}' > bad.json

$ orrery calibrate --from bad.out --from bad.json --cluster h100x8 -o never.json
! error: bad.out:7: size / time is 307.69... GB/s, but algbw says 30.77
!   hint: the row is torn, or of a version that counts otherwise: delete it or measure again
! error: bad.json:/samples/0/op: unknown value "gem"
!   hint: did you mean 'gemm'?
! ...
? 3

$ ls never.json
! ...
? 2

# A link that is not there.
$ printf '\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tSYS\t0-1\nGPU1\tSYS\t X \t0-1\n' > topo.out; orrery calibrate --from topo.out --cluster h100x8 -o t.json
> ...
! warning: topo.out:1: 2 devices in this node, 8 in h100x8
! warning: topo.out:1: GPU0 and GPU1 are joined by SYS: 1 of 1 pairs have no NVLink, but h100x8 joins all of a node by its tier 'nvlink'
! wrote t.json
! next: ...

# Measured on more devices than the cluster has.
$ sed 's/on  node-a device  1/on  node-b device  0/' nccl.out > two.out; orrery calibrate --from two.out --cluster h100x8 -o never.json
! error: two.out:5 all_gather_perf: measured over 2 hosts, but h100x8 is one node: it has no tier for them
!   hint: begin from a --cluster of several nodes, such as <template>x16
! ...
? 3

$ orrery calibrate --from absent.out --cluster h100x8
! error: absent.out: ...
? 5

$ echo hello > hello.out; orrery calibrate --from hello.out --cluster h100x8
! error: hello.out: is no output that is known here
!   hint: known: ...
? 3
