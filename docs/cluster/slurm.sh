#!/bin/bash
#SBATCH --nodes=1 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12
#SBATCH --time=24:00:00 --requeue --open-mode=append
#SBATCH --signal=B:USR1@180          # three minutes before the end, to this script
#
#   sbatch docs/cluster/slurm.sh configs/kinetics_r2plus1d.yaml run.folder=runs/k664
#   sbatch --nodes=4 docs/cluster/slurm.sh configs/kinetics_r2plus1d.yaml run.folder=runs/k664

export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# srun takes none of the job's --cpus-per-task by itself. exec: else a signal reaches bash and not Python
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
  export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
  exec python engine/train.py "$@"' train "$@" &
job=$!

stop_and_requeue() {
  kill -USR1 "$job"                  # srun hands it on to every rank
  wait "$job" && scontrol requeue "$SLURM_JOB_ID"
}
trap stop_and_requeue USR1
wait "$job"
