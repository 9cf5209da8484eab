# Runs that fail: what is left says why, and no process stays.
$ mkdir text; seq 1 20000 > text/numbers.txt; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local -o plan.json > /dev/null 2>&1

# Started with another world.
$ mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np 2 orrery-engine run plan.json --data text --out two.db 2>&1 | grep -v -e '^-' -e '^$' | sed -n 1,2p; ls -A
> error: plan.json: the plan is for 4 ranks, and 2 were started
> ...
> plan.json
> text

# A rank is killed in the second step: named, with its op, within 15 s; what it recorded is kept.
$ printf 'orrery train plan.json --data text --steps 500 -o killed.db > steps.txt 2> words.txt &\nrun=$!\nuntil grep -qs "step 2/" steps.txt; do sleep 0.1; done\nrank=$(ps -e -o pid=,args= | grep "orrery-engine [r]un plan.json .*killed.db" | grep -v mpirun | sed -n 3p | sed "s/^ *//" | cut -d" " -f1)\nkill -9 $rank\nbegan=$(date +%%s)\nwait $run\necho "code $?"\n[ $(($(date +%%s) - began)) -le 15 ] && echo "in time"\n' > kill.sh; sh kill.sh; tail -n 2 words.txt
> code 6
> in time
> error: killed.db: the run failed: rank ... died of signal 9 (Killed); last op in its trace: ... of ... (step ..., micro-batch ...)
>   hint: `orrery analyze killed.db steps` shows how far it came

$ orrery check killed.db
> ...
> killed.db  trace  ok  a measured run, failed: rank ... died of signal 9 (Killed); ...
> ...

$ orrery analyze killed.db --sql 'SELECT count(*) > 0 AS has_spans FROM v_op'
> ...
>           1
! ...

# Ctrl-C in the second step. (A shell without a terminal starts its jobs deaf to it; env mends that.)
$ printf 'env --default-signal=INT orrery train plan.json --data text --steps 500 -o stopped.db > steps.txt 2> words.txt &\nrun=$!\nuntil grep -qs "step 2/" steps.txt; do sleep 0.1; done\nkill -INT $run\nwait $run\necho "code $?"\n' > stop.sh; rm steps.txt; sh stop.sh; grep '^error' words.txt
> code 130
> error: stopped.db: interrupted

$ orrery check stopped.db
> ...
> stopped.db  trace  ok  a measured run, failed: interrupted...
> ...

# A full disk: a small one of our own. Where none may be mounted nothing is tested here, and the
# full disk of tests/engine (run_faults) stands for it.
$ mkdir small; if mount -t tmpfs -o size=300k none small 2>/dev/null; then orrery train plan.json --data text --steps 20 -o small/full.db > /dev/null 2> words.txt; code=$?; umount -l small; else echo "NOT TESTED: no right to mount; disk is full" > words.txt; code=5; fi; grep -c 'disk is full' words.txt > count.txt; exit $code
? 5

$ test "$(cat count.txt)" -ge 1; ls -A small; ps -e -o args | grep -E 'orrery-engine [r]un plan.json .*(killed|stopped|full).db'; ls -A
> count.txt
> kill.sh
> killed.db
> plan.json
> small
> steps.txt
> stop.sh
> stopped.db
> text
> words.txt
