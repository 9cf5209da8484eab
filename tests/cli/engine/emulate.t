# A slow link that is emulated, and faults on purpose, as `orrery train` tells them.
$ mkdir text; seq 1 20000 > text/numbers.txt; sed 's/"devices_per_node": 4/"devices_per_node": 2/; s/"devices": 4/"devices": 2/; s/"bandwidth": "3 GB\/s"/"bandwidth": "1 Gb\/s"/; s/"latency": "2 us"/"latency": "1 ms"/' "$(dirname "$(command -v orrery)")/../../configs/clusters/local-cpu.json" > slow.json; orrery plan --model qwen3-dense-5m --cluster ./slow.json --workload demo-local -o plan.json > /dev/null 2>&1

$ orrery train plan.json --data text --steps 2 --emulate-link "1 Gb/s,1 ms" > /dev/null 2>&1; orrery check run.db
> file    kind
> run.db  trace  ok  a measured run (emulated_link 125 MB/s,1 ms), ok

$ orrery compare plan.json run.db --top 1 2>&1 | grep 'ran with'
> warning: run.db ran with emulated_link 125 MB/s,1 ms

# Refused before any rank is started.
$ orrery train plan.json --data text --stall-limit soon -o no.db 2>&1 | grep '^error'; ls no.db* 2>/dev/null
> error: --stall-limit: 'soon' does not begin with a number that is zero or more
? 2

# A rank that hangs: the message is the ranks' own.
$ ORRERY_INJECT=hang:rank=1,step=1 orrery train plan.json --data text --steps 3 --stall-limit "10 s" -o hung.db > /dev/null 2> words.txt; echo $?; grep -c 'rank 1 did not come to op data/count' words.txt | sed 's/[1-9]/named/'; orrery check hung.db | tr -d '\n' | grep -o 'rank 1 did not come *to *op' | tr -s ' '
> 6
> named
> rank 1 did not come to op

$ ps -e -o args | grep -E 'orrery-engine [r]un plan.json .*(run|hung).db'; ls -A
> hung.db
> plan.json
> run.db
> slow.json
> text
> words.txt
