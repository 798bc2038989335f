#!/bin/bash
# Train on two nodes of four GPUs each: sbatch docs/slurm.sh --dataset_dir /shared/data --max_epochs 100
#SBATCH --job-name=efficientsam
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=24
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@60
set -euo pipefail
cd "$SLURM_SUBMIT_DIR" # the bundle, on a file system that all nodes see

first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
last=models/last.pth # of this run, when the job was stopped and is started again
srun .venv/bin/torchrun \
  --nnodes="$SLURM_NNODES" --nproc_per_node=4 \
  --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d --rdzv_endpoint="$first_node:29500" \
  -m monai.bundle run training --config_file "['configs/train.yaml','configs/multi_gpu.yaml']" \
  $([ -f "$last" ] && echo "--resume_path $last") "$@"
