#!/usr/bin/env bash
# Installs Slurm from Debian's packages where that can be done; says so where it cannot. That is not a failure: tests
# that need it then skip.
set -u
if command -v slurmctld sbatch munged > /dev/null; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "Slurm is not installed and cannot be (root and apt-get are needed): its tests will skip" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm slurm-client munge; } > /dev/null 2>&1 ||
  echo "apt-get could not install Slurm: its tests will skip" >&2
exit 0
