# Ranks on several hosts: what train reads, refuses and starts. A cluster of two nodes of two.
$ mkdir data bin; echo text > data/a.txt; printf '#!/bin/sh\nexit 0\n' > bin/engine; cp bin/engine bin/mpirun; cp bin/engine bin/reach; chmod +x bin/*; sed 's/"devices_per_node": 4/"devices_per_node": 2/; s/"tiers": \[/"tiers": [{"name": "shm", "domain": 2, "bandwidth": "3 GB\/s", "latency": "2 us"},/; s/"name": "shm",$/"name": "tcp",/' "$(dirname "$(command -v orrery)")/../../configs/clusters/local-cpu.json" > two.json; orrery plan --model qwen3-moe-10m --cluster ./two.json --workload demo-local 2>&1 > /dev/null | tail -n 1
> next: orrery train plan.json --data DIR --hosts FILE  # run it on its nodes

# Nobody said where.
$ orrery train plan.json --data data
! error: plan.json:/cluster: the plan is for local-cpu (2 nodes of 2), and no hosts are named
!   hint: --hosts FILE with a line `name slots=2` for each, or run it in a Slurm job; nodes on this machine: scripts/lab
? 3

# The line as it is started: the words of the file in all three forms; a host that is not needed.
$ printf '# the two of rack 1\na:2\n\n  b  slots=2 # fast\nc\n' > hosts; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data --hosts hosts --dry-run 2>/dev/null | sed "s|$PWD|HERE|g"
> OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 HERE/bin/mpirun --allow-run-as-root --bind-to none --mca mpi_yield_when_idle 1 --map-by slot --mca btl_tcp_flags send,inplace,need-ack,need-csum,hetero-rdma --wdir HERE -x OMP_NUM_THREADS -x OMP_WAIT_POLICY -x OPENBLAS_NUM_THREADS --host a:2,b:2 -np 4 HERE/bin/engine run plan.json --data data --out run.db --steps 20 --seed 0 --predicted-ns ...

$ printf 'c\nd\n' > two; PATH=$PWD/bin:$PATH orrery train plan.json --data data --hosts two --remote-shell "reach -p 22" --interface ib0 --dry-run 2>/dev/null | grep -o -e '--map-by.*--wdir' -e '--host [^ ]*'
> --map-by slot --mca btl_tcp_flags send,inplace,need-ack,need-csum,hetero-rdma --mca plm rsh --mca plm_rsh_agent 'reach -p 22' --mca plm_rsh_no_tree_spawn 1 --mca pml ob1 --mca btl self,vader,tcp --mca btl_tcp_if_include ib0 --mca oob_tcp_if_include ib0 --wdir
> --host c:2,d:2

# The environment stands for the options, and the options win.
$ export ORRERY_HOSTS=two ORRERY_REMOTE_SHELL=$PWD/bin/reach ORRERY_INTERFACE=eth1; orrery train plan.json --data data --dry-run 2>/dev/null | grep -c -e "plm_rsh_agent $PWD/bin/reach .*btl_tcp_if_include eth1 .*--host c:2,d:2 "; orrery train plan.json --data data --hosts hosts --interface ib0 --dry-run 2>/dev/null | grep -c -e "btl_tcp_if_include ib0 .*--host a:2,b:2 "
> 1
> 1

# All that is wrong in the file, at once.
$ printf 'a slots=0\nb slots=2\nb:2\n-c\nd:many\ne slots=2 cores=3\nf:2 slots=2\n' > bad; orrery train plan.json --data data --hosts bad
! error: bad:1: '0' is no number of slots for a
!   hint: a whole number from 1 to 1000000
! error: bad:3: b stands at bad:2 already
!   hint: one line a host: its ranks have numbers in a row
! error: bad:4: '-c' is no host name
!   hint: a line is `name`, `name:4` or `name slots=4`; remarks begin with #
! error: bad:5: 'many' is no number of slots for d
!   hint: a whole number from 1 to 1000000
! error: bad:6: 'cores=3' behind e means nothing
!   hint: a line is `name`, `name:4` or `name slots=4`; remarks begin with #
! error: bad:7: the slots of f twice
!   hint: a line is `name`, `name:4` or `name slots=4`; remarks begin with #
? 3

$ printf '# none\n' > none; orrery train plan.json --data data --hosts none
! error: none: names no host
!   hint: a line is `name`, `name:4` or `name slots=4`; remarks begin with #
? 3

$ orrery train plan.json --data data --hosts nowhere
! error: nowhere: cannot be read: No such file or directory
? 5

# Hosts that are not as the plan's nodes: too large, too small, too few.
$ printf 'a:4\nb:1\n' > other; orrery train plan.json --data data --hosts other
! error: other:1: a has 4 slots, but the plan has 2 ranks on a node
!   hint: write slots=2, or plan for a cluster of such nodes
! error: other:2: b has 1 slot, but the plan has 2 ranks on a node
!   hint: write slots=2, or plan for a cluster of such nodes
? 3

$ printf 'a\n' > one; orrery train plan.json --data data --hosts one
! error: one: 1 host, but the plan is for 4 ranks on 2 nodes of 2
!   hint: add lines `name slots=2`, or plan for fewer nodes
? 3

$ orrery train plan.json --data data --hosts two --remote-shell "nowhere/ssh -p 22"
! error: --remote-shell: 'nowhere/ssh' is no program that can be started
!   hint: it is called as `CMD HOST COMMAND...`, as ssh is
? 5

# A plan for one node: this machine by name changes nothing, another host is reached.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local -o here.json > /dev/null 2>&1; orrery train here.json --data data --dry-run > plain 2>/dev/null; for name in localhost "$(hostname)"; do echo "$name" > me; orrery train here.json --data data --hosts me --dry-run 2>/dev/null | cmp - plain; done; echo far > me; orrery train here.json --data data --hosts me --dry-run 2>/dev/null | grep -o -e '--host [^ ]*'; grep -c -e --oversubscribe plain
> --host far:4
> 1

# In a Slurm job mpirun asks Slurm for the hosts.
$ export SLURM_JOB_ID=7 SLURM_JOB_NODELIST='n[1-2]' SLURM_TASKS_PER_NODE='2(x2)'; PATH=$PWD/bin:$PATH orrery train plan.json --data data --dry-run 2>/dev/null | grep -o -e 'mpirun.*-np 4' | sed "s|$PWD|HERE|g"
> mpirun --allow-run-as-root --bind-to none --mca mpi_yield_when_idle 1 --map-by slot --mca btl_tcp_flags send,inplace,need-ack,need-csum,hetero-rdma --wdir HERE -x OMP_NUM_THREADS -x OMP_WAIT_POLICY -x OPENBLAS_NUM_THREADS -np 4

$ export SLURM_JOB_ID=7 SLURM_JOB_NODELIST='n[1-2]' SLURM_JOB_NUM_NODES=2 SLURM_NTASKS_PER_NODE=2; orrery train plan.json --data data --dry-run 2>/dev/null | grep -c -e '--map-by slot'
> 1

$ export SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1 SLURM_TASKS_PER_NODE=2; orrery train plan.json --data data
! error: Slurm job 7: 1 host, but the plan is for 4 ranks on 2 nodes of 2
!   hint: sbatch --nodes=2 --ntasks-per-node=2
? 3

$ export SLURM_JOB_ID=7 SLURM_JOB_NODELIST='n[1-2]' SLURM_TASKS_PER_NODE=3,1; orrery train plan.json --data data
! error: SLURM_TASKS_PER_NODE: node 1 has 3 slots, but the plan has 2 ranks on a node
!   hint: sbatch --nodes=2 --ntasks-per-node=2
! error: SLURM_TASKS_PER_NODE: node 2 has 1 slot, but the plan has 2 ranks on a node
!   hint: sbatch --nodes=2 --ntasks-per-node=2
? 3

$ export SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1 SLURM_TASKS_PER_NODE='2(2x'; orrery train plan.json --data data
! error: SLURM_TASKS_PER_NODE: '2(2x' is not of the form 4(x2),3
!   hint: name the hosts: --hosts FILE
? 3

# One node with fewer tasks than ranks is what it always was; named hosts win over Slurm's.
$ export SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1 SLURM_TASKS_PER_NODE=1; orrery train here.json --data data --dry-run 2>/dev/null | cmp - plain; orrery train plan.json --data data --hosts two --dry-run 2>/dev/null | grep -o -e '--host [^ ]*'
> --host c:2,d:2

# A host that lacks the engine, and the launcher's words about it.
$ printf '#!/bin/sh\necho "2 total processes failed to start"\nfor i in 1 2; do echo ----------------------------------------------------------------- >&2; [ $i = 1 ] && printf "mpirun was unable to launch\\n\\nExecutable: /opt/orrery-engine\\nNode: b\\n\\nwhile attempting to start process rank 2.\\n" >&2; done; echo "[a:1] plm:rsh: Warning: setpgid(2,2) failed" >&2\nexit 132\n' > bin/mpirun; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data --hosts hosts
! error: run.db: the run failed: /opt/orrery-engine is not on b: every host needs it at this path
? 5

# A remote shell that ends once it has started its ranks is not a dead rank.
$ printf '#!/bin/sh\nsleep 1.5 &\nsleep 13\nexit 7\n' > bin/mpirun; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data --hosts hosts
! error: run.db: the run failed: the launcher ended with code 7
? 6

# A rank is killed: which, and where.
$ printf '#!/bin/sh\nfor i in 1 2; do echo ----------------------------------------------------------------- >&2; [ $i = 1 ] && echo "mpirun noticed that process rank 2 with PID 0 on node b exited on signal 9 (Killed)." >&2; done\nexit 137\n' > bin/mpirun; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery train plan.json --data data --hosts hosts
! error: run.db: the run failed: rank 2 on b died of signal 9 (Killed)
? 6
