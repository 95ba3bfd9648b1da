#!/bin/bash
# A run over machines that ssh reaches, each with this checkout, its environment and the data at the same paths.
#
#   RUN=runs/k664 bash docs/cluster/ssh.sh "host0 host1" configs/kinetics_r2plus1d.yaml [section.key=value ...]
#   RUN=runs/k664 ONLY=1 bash docs/cluster/ssh.sh "host0 host2" ...      # host2 for host1, which was lost: start number 1 alone
#
# Ends when the run is finished, or with the status of a node that was given up. Ctrl-C stops all: the ranks save first.
# RANKS, PORT, TRIES: as in node.sh, for all nodes.
set -u
read -ra hosts <<< "$1"
shift
nodes=()
for number in ${ONLY:-${!hosts[@]}}; do
  host=${hosts[number]}
  command=(env "NODES=${#hosts[@]}" "NODE=$number" "HEAD=${hosts[0]}" "ADDRESS=$host" "RUN=$RUN")
  for name in RANKS PORT TRIES; do [[ -v $name ]] && command+=("$name=${!name}"); done
  command+=(bash docs/cluster/node.sh "$@")
  # -tt: a connection that ends takes its node's processes with it. PATH: a shell without login has not read the environment
  ssh -tt "$host" "cd $(printf %q "$PWD") && PATH=$(printf %q "$PATH") ${command[*]@Q}" < /dev/null &
  nodes+=($!)
done
trap 'kill -TERM "${nodes[@]}" 2> /dev/null' INT TERM
status=0
for node in "${nodes[@]}"; do
  wait "$node" || status=$?
done
exit "$status"
