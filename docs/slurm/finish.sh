#!/bin/bash
# After training: evaluation of base, swap, realign and adapt; the published model in Hugging Face's format; the report.
# One process on one device (for an 11B model: 23 GB of weights in bfloat16, and room for activations).
#   sbatch --dependency=afterok:JOB_OF_TRAINING finish.sh

#SBATCH --job-name=normistral-finish
#SBATCH --account=project_465000000
#SBATCH --partition=small-g
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=7
#SBATCH --mem=120G
#SBATCH --time=12:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

# ---- yours ---------------------------------------------------------------------------------------------------------
RECIPE=recipes/my-language.yaml
RUN=/scratch/$SLURM_JOB_ACCOUNT/runs/my-language
ACTIVATE='source /projappl/project_465000000/venv/bin/activate'
# --------------------------------------------------------------------------------------------------------------------

# What training made is found done and skipped; each model that has been measured is kept.
srun bash -c "$ACTIVATE; exec \"\$@\"" bash normistral run "$RECIPE" --out "$RUN"
# Does it read and write?
srun bash -c "$ACTIVATE; exec \"\$@\"" bash \
  normistral fill-mask "$RUN/model" 'En søt lundefugl flyr over de<mask> norske fjorder.' --dtype bfloat16
