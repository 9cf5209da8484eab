# What train does around the engine, with launchers and engines that are not real.
$ mkdir data bin; echo text > data/a.txt; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local >/dev/null 2>&1

# No engine is built: a copy of orrery that stands alone.
$ mkdir alone; cp "$(command -v orrery)" alone/; ORRERY_CONFIGS="$(dirname "$(command -v orrery)")/../../configs" alone/orrery train plan.json --data data
! ...
! error: ...alone/orrery-engine: the engine is not built
!   hint: scripts/install-deps && cmake --preset release && cmake --build --preset release; or set ORRERY_ENGINE
? 5

$ rm -r alone; ORRERY_ENGINE=/nowhere orrery train plan.json --data data 2>&1 | tail -n 2
> error: /nowhere: $ORRERY_ENGINE does not name a program
>   hint: ...

$ printf '#!/bin/sh\nexit 0\n' > bin/engine; chmod +x bin/engine; ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data --steps 3 --seed 9 --dry-run 2>/dev/null | sed "s|$PWD|HERE|"
> OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 ...mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np 4 HERE/bin/engine run plan.json --data data --out run.db --steps 3 --seed 9 --predicted-ns ...

# A plan for another cluster, missing data, too few steps.
$ sed 's/"global_sequences": 1024/"global_sequences": 64/' "$(dirname "$(command -v orrery)")/../../configs/workloads/pretrain-4k.json" > rows-64.json; orrery plan --model qwen3-0.6b --cluster h800x8 --workload rows-64.json -o gpu.json > /dev/null 2>&1; rm rows-64.json; orrery train gpu.json --data data
! error: gpu.json:/cluster: the plan is for h800x8 (8 x h800-sxm), but the engine has this machine's cores
!   hint: plan for this machine: `orrery doctor --probe -o local.json`, ...
? 3

$ orrery train plan.json --data nothing 2>&1 | tail -n 2
> error: nothing: no such file or folder
>   hint: --data is a text file, or a folder of them

# Neither the plan nor the data is replaced.
$ orrery train plan.json --data data -o plan.json 2>&1 | tail -n 2
> error: --out: plan.json would replace what this command reads
>   hint: name another file after -o

$ orrery train plan.json --data data/a.txt -o data/a.txt 2>&1 | tail -n 2
> error: --out: data/a.txt would replace what this command reads
>   hint: name another file after -o

$ orrery train plan.json --data data -o data/a.txt 2>&1 | tail -n 2
> error: --out: data/a.txt would replace what this command reads, data
>   hint: name another file after -o

$ cat data/a.txt
> text

$ orrery train plan.json --data data --steps 0 2>&1 | tail -n 2
> error: --steps: '0' is not a number of its range
>   hint: ...

$ printf '#!/bin/sh\n. ./job\n' > bin/mpirun; chmod +x bin/mpirun; ls -A
> bin
> data
> gpu.json
> plan.json

# A rank is killed: Open MPI says which. Its frames are not repeated.
$ printf 'echo "step 1/3 | loss 5.5"\nfor i in 1 2; do echo ----------------------------------------------------------------- >&2; [ $i = 1 ] && echo "mpirun noticed that process rank 2 with PID 0 on node a exited on signal 9 (Killed)." >&2; done\nexit 137\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data
> step 1/3 | loss 5.5
! ...
! error: run.db: the run failed: rank 2 died of signal 9 (Killed)
? 6

# The engine's own codes pass through, with its own words.
$ printf 'echo "error: plan.json: is for 4 ranks, but 2 run" >&2\nexit 3\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data --json
> {
>   "schema_version": 1,
>   "status": "failed",
> ...
>   "file": null,
>   "steps": 0,
> ...
> }
! ...
! error: plan.json: is for 4 ranks, but 2 run
! error: run.db: the run failed: the launcher ended with code 3
? 3

# An engine that ends well and leaves nothing did not run.
$ printf 'exit 0\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data
! ...
! error: run.db: the run failed: the ranks left no trace
? 6

# A launcher that outlives a rank is ended, with the ranks that are left.
$ printf 'sleep 98761 &\nsleep 1.5 &\nwait\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine timeout 20 orrery train plan.json --data data
! ...
! error: run.db: the run failed: a rank ended and the launcher did not
? 6

# Ctrl-C, once where the launcher obeys and once where it does not.
$ printf 'sleep 98762 &\nsleep 98763\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine timeout --preserve-status -s INT 2 orrery train plan.json --data data
! ...
! error: run.db: interrupted
? 130

$ printf 'trap "" TERM\nsleep 98764 &\nwhile true; do sleep 98765; done\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine timeout --preserve-status -s TERM 2 orrery train plan.json --data data
! ...
! error: run.db: interrupted
? 130

# When orrery itself is killed, the launcher ends too.
$ printf 'exec sleep 98766\n' > job; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine timeout --preserve-status -s KILL 2 orrery train plan.json --data data; sleep 0.5
! ...

$ ps -e -o args | grep -E '^sleep 9876[0-9]'; ls -A
> bin
> data
> gpu.json
> job
> plan.json
