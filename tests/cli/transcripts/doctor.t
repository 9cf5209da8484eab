$ orrery doctor
> ok  cores ...
> ok  memory ...
> ok  configs   ... models ...
> ...
> This machine plans...
! ...

$ orrery doctor --json | head -n 3
> {
>   "schema_version": 1,
>   "can_train": ...

$ orrery doctor --probe
! error: orrery doctor: --probe needs a place for its result
!   hint: orrery doctor --probe -o local.json
? 2

$ orrery doctor -o local.json
! error: orrery doctor: --out belongs to --probe
!   hint: orrery doctor --probe -o local.json
? 2

$ mkdir folder; orrery doctor --probe -o folder
! error: folder: is not a regular file
!   hint: choose another name with -o
? 5

$ rmdir folder

$ ORRERY_ENGINE=/nowhere orrery doctor --probe -o local.json
! error: /nowhere: $ORRERY_ENGINE does not name a program
!   hint: ...
? 5

# A launcher that is not real writes a template: it is checked, then it appears.
$ mkdir bin; cp "$(dirname "$(command -v orrery)")/../../configs/clusters/local-cpu.json" template.json; printf '#!/bin/sh\nexit 0\n' > bin/engine; printf '#!/bin/sh\nfor file; do :; done\ncp template.json "$file"\n' > bin/mpirun; chmod +x bin/*

$ PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery doctor --probe --ranks 4 -o local.json
>
> local-cpu: 4 ranks on 4 cores
>   a rank ...
>   memory ...
>   link shm ...
! wrote local.json
! next: orrery plan --model qwen3-moe-10m --cluster local.json --workload demo-local  # plan for this machine

$ echo '{' > template.json; rm local.json; PATH=$PWD/bin:$PATH ORRERY_ENGINE=$PWD/bin/engine orrery doctor --probe -o local.json
! error: local.json:...
? 3

$ ls -A
> bin
> template.json
