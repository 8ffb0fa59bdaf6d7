#!/bin/bash
# The stages before training (corpus, tokenizer, shards, mixture, base, swap): one node with many cores, no GPU.
#   sbatch prepare.sh

#SBATCH --job-name=normistral-prepare
#SBATCH --account=project_465000000
#SBATCH --partition=small
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=64
#SBATCH --mem=224G
#SBATCH --time=2-00:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

# ---- yours ---------------------------------------------------------------------------------------------------------
RECIPE=recipes/my-language.yaml
RUN=/scratch/$SLURM_JOB_ACCOUNT/runs/my-language
ACTIVATE='source /projappl/project_465000000/venv/bin/activate'
# --------------------------------------------------------------------------------------------------------------------

# A finished stage is kept and skipped: submit again after a time limit. Compute nodes often have no network: what a
# recipe fetches (hub:… sources, a base by its hub id) is then fetched on a login node, by the same command.
srun bash -c "$ACTIVATE; exec \"\$@\"" bash normistral run "$RECIPE" --out "$RUN" --until swap
