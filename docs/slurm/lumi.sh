#!/bin/bash
# Training (realign, adapt) on LUMI-G or a machine like it: 4 MI250X a node, that is 8 devices (GCDs) of 64 GB.
# Submit after prepare.sh:   sbatch lumi.sh
# Why it is written so, and what has not been tested: docs/cluster.md.

#SBATCH --job-name=normistral-train
#SBATCH --account=project_465000000
#SBATCH --partition=standard-g
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --mem=480G
#SBATCH --exclusive
#SBATCH --time=2-00:00:00
# Five minutes before the limit all processes are asked to stop, and write a checkpoint.
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -uo pipefail

# ---- yours ---------------------------------------------------------------------------------------------------------
RECIPE=recipes/my-language.yaml
RUN=/scratch/$SLURM_JOB_ACCOUNT/runs/my-language        # Lustre: every node sees it
ACTIVATE='source /projappl/project_465000000/venv/bin/activate'
CONTAINER=()
# In LUMI's PyTorch container instead (normistral installed into a virtual environment on top of it):
#   module use /appl/local/containers/ai-modules && module load singularity-AI-bindings
#   CONTAINER=(singularity exec /appl/local/containers/sif-images/lumi-pytorch-rocm-VERSION.sif)
#   ACTIVATE='$WITH_CONDA; source /projappl/project_465000000/venv/bin/activate'
TRAIN=(normistral train "$RECIPE" --out "$RUN")
MOST_RESTARTS=10                                        # after losses; a time limit may come as often as it likes
# --------------------------------------------------------------------------------------------------------------------

# RCCL and gloo over Slingshot, RCCL straight into the GPU's memory (PHB is the default from ROCm 6.2 on).
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export GLOO_SOCKET_IFNAME=hsn0
export NCCL_NET_GDR_LEVEL=PHB

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
# MIOpen locks files in its cache, which Lustre does not like.
export MIOPEN_USER_DB_PATH=/tmp/$USER-miopen-$SLURM_NODEID
export MIOPEN_CUSTOM_CACHE_DIR=$MIOPEN_USER_DB_PATH
exec "$@"'

# Each process on the seven free cores next to its device: device 0 is nearest to cores 48-55, and so on; the first core
# of every eight belongs to the system.
CORES=mask_cpu:0xfe000000000000,0xfe00000000000000,0xfe0000,0xfe000000,0xfe,0xfe00,0xfe00000000,0xfe0000000000

# --gpu-bind=none: each process sees all devices of its node and takes the one of its LOCAL_RANK.
# --kill-on-bad-exit=0 --wait=600: one process that has ended early (after a stop, or because it was lost) does not take
# along those that still write; but ten minutes later nothing is left.
code=0
srun --cpu-bind="$CORES" --gpu-bind=none --kill-on-bad-exit=0 --wait=600 \
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
