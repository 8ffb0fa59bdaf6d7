#!/bin/bash
# Training (realign, adapt) on nodes with 8 NVIDIA GPUs (H100, H200, A100).
# Submit after prepare.sh:   sbatch h100.sh
# Why it is written so, and what has not been tested: docs/cluster.md.

#SBATCH --job-name=normistral-train
#SBATCH --account=my-project
#SBATCH --partition=gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=1-00:00:00
# Five minutes before the limit all processes are asked to stop, and write a checkpoint.
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -uo pipefail

# ---- yours ---------------------------------------------------------------------------------------------------------
RECIPE=recipes/my-language.yaml
RUN=/scratch/runs/my-language                           # on a disk that every node sees
ACTIVATE='source /path/to/venv/bin/activate'
CONTAINER=()
# In a container instead (normistral installed in it, or in a virtual environment on top of it):
#   CONTAINER=(apptainer exec --nv /path/to/pytorch.sif)
TRAIN=(normistral train "$RECIPE" --out "$RUN")
MOST_RESTARTS=10                                        # after losses; a time limit may come as often as it likes
# --------------------------------------------------------------------------------------------------------------------

# FSDP gives and takes blocks of memory of many sizes; this keeps them from leaving gaps.
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
# Several nodes: the interface and the InfiniBand adapters of your site, if NCCL and gloo do not find them.
#   export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0 NCCL_IB_HCA=mlx5

# Where the processes meet.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# What torchrun would tell each process. It is not used: it kills its processes 30 seconds after SIGTERM (PyTorch
# issue 119856), and a checkpoint may take longer. TORCHELASTIC_RUN_ID says that the rest is set.
# shellcheck disable=SC2016  # each process fills in its own numbers
AS_TORCHRUN='
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
export TORCHELASTIC_RUN_ID=$SLURM_JOB_ID
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
exec "$@"'

# --gpu-bind=none: each process sees all devices of its node and takes the one of its LOCAL_RANK.
# --kill-on-bad-exit=0 --wait=600: one process that has ended early (after a stop, or because it was lost) does not take
# along those that still write; but ten minutes later nothing is left.
code=0
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --cpu-bind=cores --gpu-bind=none --kill-on-bad-exit=0 --wait=600 \
  "${CONTAINER[@]}" bash -c "$ACTIVATE; $AS_TORCHRUN" bash "${TRAIN[@]}" || code=$?

# 0: finished. 130: asked to stop, with a checkpoint. 75, and above 130 (ended by a signal): a process was lost. Else a
# mistake, that another start would only repeat.
if ((code == 130)) || { ((code == 75 || code > 130)) && ((${SLURM_RESTART_COUNT:-0} < MOST_RESTARTS)); }; then
  echo "code $code: goes on from the last checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
else
  echo "code $code: the jobs of this name that still wait in a chain are not needed, or would not help"
  scancel --user="$USER" --name="$SLURM_JOB_NAME" --state=PENDING
fi
exit "$code"
