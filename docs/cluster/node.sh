#!/bin/bash
# One node's ranks of a run over several nodes, started again until the run is finished: whatever node is lost, start the same
# command on another one. The head may be any node, but all must name the same; a lost head's successor must have its name.
#
#   NODES=2 NODE=0 HEAD=host0 RUN=runs/k664 bash docs/cluster/node.sh configs/kinetics_r2plus1d.yaml [section.key=value ...]
#
# NODES: how many.  NODE: this one's number, from 0 (Kubernetes' JOB_COMPLETION_INDEX).  HEAD: where number 0 runs, as the others
# reach it.  RUN: the run folder, on a disk that all share.  RANKS: of this node (its GPUs).  PORT: free on the head.  ADDRESS: this
# node's name, where its own does not lead to it.  TRIES: starts at most, so that a mistake does not start for ever.
set -u
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else a fresh node waits for the lost one's address (torch 2.14)
node=${NODE:-$JOB_COMPLETION_INDEX}

stop() {  # the ranks save and end; so does this node, and whoever sent the signal starts it again
  trap '' TERM INT HUP
  if [[ $agent ]]; then
    # To the ranks, if there are any yet: torchrun would end at once, and let the other nodes' wait for it (300 s)
    kill -USR1 $(< "/proc/$agent/task/$agent/children") 2> /dev/null || kill -TERM "$agent"
    wait "$agent"
  fi
  exit 143
}
agent=
trap stop TERM INT HUP

for ((try = 0; try < ${TRIES:-20}; try++)); do
  [[ -f $RUN/results.json ]] && exit 0
  ((try)) && sleep 5
  python -m torch.distributed.run --nnodes "$NODES" --nproc-per-node "${RANKS:-gpu}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29400}" --rdzv-id "$RUN" --rdzv-conf "is_host=$((node == 0))" \
    ${ADDRESS:+--local-addr "$ADDRESS"} engine/train.py "$@" "run.folder=$RUN" &
  agent=$!
  wait "$agent"
  agent=
done
[[ -f $RUN/results.json ]]
